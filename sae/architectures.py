"""The table of methods: for each SAE architecture and baseline its name, how figures draw it, and how it is trained.

The study file, the settings, the report, the import of other libraries' SAEs and the frontier (R2 against L0) read this
table. Imports no torch. `sae.sparsity.SELECT` maps the name of an architecture with a linear encoder to the function
that selects its codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method that the frontier (R2 against L0) compares, and how figures draw it.

    SAEs are drawn in colour, baselines in ink; marks tell them apart.
    """

    name: str  # in study files
    label: str  # in figures
    legend: int  # position in legends
    colour: str  # name of the colour in the report's palette
    mark: str  # matplotlib's marker, one of report.drawing.MARKS
    dash: str = ""  # lengths of dashes and gaps; "" is a solid line


@dataclass(frozen=True)
class Parameter:
    """A setting that only some architectures have."""

    type: Any  # type and limits, as pydantic reads them
    default: Any
    description: str
    refusal: str  # the error when the architecture {name} lacks the parameter; {owners} have it
    check: Callable[[Any, int], None] | None = None  # check(value, width) raises ValueError


@dataclass(frozen=True, kw_only=True)
class Architecture(Method):
    """An architecture of SAEs: the rule by which codes become sparse."""

    #: Initial weight of the sparsity penalty; None if there is no penalty and a fixed number of codes is kept.
    first_penalty: float | None = None
    #: "row": the k largest codes of each row are kept. "batch": the k*B largest codes of a batch of B rows are kept.
    #: Both can be trained by the sparse step. None: any other rule, trained by the dense step.
    selection: Literal["row", "batch"] | None = None
    #: Codes are found by matching pursuit with the dictionary itself (`sae.pursuit`), in training and inference, so
    #: there is no encoder to learn. An SAE of any other architecture has a linear encoder.
    pursuit: bool = False
    #: Inference keeps the pre-activations above a threshold. It is 0 ("zero"), learned with the weights ("learned"), or
    #: calibrated on all training rows ("calibrated"). "none": no threshold; inference selects codes as training does.
    threshold: Literal["zero", "learned", "calibrated", "none"]
    #: Whether another library's state dict that holds no thresholds can be read as this architecture.
    foreign: bool = False
    #: (architecture, activation function) of cfg.json in SAELens that have the same rule.
    saelens: tuple[tuple[str, str], ...] = ()
    overcomplete: str = ""  # the class of overcomplete that has the same rule
    dictionary_learning: tuple[str, ...] = ()  # the classes of dictionary_learning that have the same rule
    parameters: dict[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BaselineRow(Method):
    """A baseline that SAEs are compared with; its class is in `sae.baselines`."""

    one_code: bool = False  # whether a row has one code for every k, with the method's own encoder
    own_encoder: bool = False  # whether the method has an encoder other than matching pursuit


def check_prefixes(prefixes: tuple[int, ...], width: int) -> None:
    """Raise ValueError unless the nested widths rise and the last one is the dictionary's width."""
    if not prefixes or list(prefixes) != sorted(set(prefixes)) or prefixes[-1] != width:
        raise ValueError(f"prefixes is {list(prefixes)}; rising widths that end with the width, {width}, are allowed")


PENALTY = Parameter(
    Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
    None,
    "weight of the L1 (relu) or L0 (jumprelu) penalty; if it is left out, training adjusts it until L0 is k",
    "penalty is for {owners}; {name} keeps k codes without one",
)
RESCALE = Parameter(
    bool,
    True,
    "multiply each concept's codes after training by a factor, fitted by least squares on the rows on which the concept"
    " fires, that undoes the shrinkage by the L1 penalty",
    "rescale is for {owners}; {name} has no penalty that shrinks codes",
)
BANDWIDTH = Parameter(
    Annotated[float, Field(gt=0, le=100)],
    2.0,
    "width of the kernel through which jumprelu learns its thresholds, in units of the standard deviation of the"
    " pre-activations at the start",
    "bandwidth is for {owners}; {name} learns no thresholds",
)
PREFIXES = Parameter(
    tuple[Annotated[int, Field(ge=1)], ...] | None,
    None,
    "widths of matryoshka's nested dictionaries, the last one equal to `width`, C; default: C/16, C/8, C/4, C/2, C",
    "prefixes are for {owners}; {name} has one dictionary",
    check_prefixes,
)

ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture(
            name="relu", label="ReLU + L1", legend=4, colour="sixth", mark="v",
            first_penalty=1e-2, threshold="zero", foreign=True, parameters={"penalty": PENALTY, "rescale": RESCALE},
            saelens=(("standard", "relu"),), overcomplete="SAE",
            dictionary_learning=("AutoEncoder", "AutoEncoderNew"),
        ),
        Architecture(
            name="topk", label="TopK", legend=1, colour="second", mark="s",
            selection="row", threshold="none", foreign=True,
            saelens=(("topk", "topk"), ("standard", "topk")), overcomplete="TopKSAE",
            dictionary_learning=("AutoEncoderTopK",),
        ),
        Architecture(
            name="batchtopk", label="BatchTopK", legend=0, colour="first", mark="o",
            selection="batch", threshold="calibrated", foreign=True, saelens=(("batchtopk", "relu"),),
            dictionary_learning=("BatchTopKSAE",),
        ),
        Architecture(
            name="jumprelu", label="JumpReLU", legend=3, colour="fifth", mark="D",
            first_penalty=1e-2, threshold="learned", parameters={"penalty": PENALTY, "bandwidth": BANDWIDTH},
            saelens=(("jumprelu", "relu"), ("gated", "relu")), overcomplete="JumpSAE",
            dictionary_learning=("JumpReluAutoEncoder", "GatedAutoEncoder"),
        ),
        Architecture(
            name="matryoshka", label="Matryoshka", legend=2, colour="fourth", mark="^",
            selection="batch", threshold="calibrated", parameters={"prefixes": PREFIXES},
            saelens=(("matryoshka_batchtopk", "relu"),),
            # versions before 0.1.0 spelled it Matroyshka
            dictionary_learning=("MatryoshkaBatchTopKSAE", "MatroyshkaBatchTopKSAE"),
        ),
        Architecture(
            name="mp", label="MP-SAE", legend=5, colour="second", mark="x",
            pursuit=True, threshold="none",
        ),
    )
}  # fmt: skip
BASELINES: dict[str, BaselineRow] = {
    row.name: row
    for row in (
        BaselineRow(name="pca", label="PCA", legend=100, colour="ink", mark="s", dash="6 3", own_encoder=True),
        BaselineRow(name="ica", label="ICA", legend=101, colour="ink", mark="D", dash="2 2", own_encoder=True),
        BaselineRow(name="nmf", label="NMF (±)", legend=102, colour="ink", mark="^", dash="6 2 2 2"),
        BaselineRow(
            name="kmeans", label="k-means", legend=103, colour="ink", mark="x", one_code=True, own_encoder=True
        ),
        BaselineRow(name="spherical", label="spherical k-means", legend=104, colour="muted", mark="v", dash="6 3"),
        BaselineRow(name="random", label="random directions", legend=106, colour="muted", mark="+", dash="6 2 2 2"),
        BaselineRow(name="sample", label="data sample", legend=105, colour="muted", mark="o", dash="2 2"),
    )
}
METHODS: dict[str, Method] = {**ARCHITECTURES, **BASELINES}
PARAMETERS = {name: parameter for row in ARCHITECTURES.values() for name, parameter in row.parameters.items()}
TOPK_FAMILY = tuple(name for name, row in ARCHITECTURES.items() if row.first_penalty is None)  # keep k codes
PENALISED = tuple(name for name in ARCHITECTURES if name not in TOPK_FAMILY)


ENCODERS = ("own", "pursuit")  # a method's own encoder, and non-negative matching pursuit with its dictionary


def encoders_of(method: str) -> tuple[str, ...]:
    """The encoders with which the frontier measures a method: its own, where it has one, and matching pursuit."""
    row = METHODS[method]
    own = row.own_encoder if isinstance(row, BaselineRow) else not ARCHITECTURES[method].pursuit
    return ENCODERS if own else ("pursuit",)


def check_parameters(architecture: str, width: int, values: dict[str, Any]) -> None:
    """Raise ValueError if a parameter that is set belongs to other architectures only, or its value is not allowed."""
    for name, value in values.items():
        parameter = PARAMETERS[name]
        if value == parameter.default:
            continue
        if name not in ARCHITECTURES[architecture].parameters:
            owners = " and ".join(row.name for row in ARCHITECTURES.values() if name in row.parameters)
            raise ValueError(parameter.refusal.format(owners=owners, name=architecture))
        if parameter.check is not None:
            parameter.check(value, width)
