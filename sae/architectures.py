"""The table of methods: for each architecture and baseline its name, how figures draw it, and how it is trained.

Everything else derives from it: the study file, settings, sentences, figures, interchange and the frontier. Imports no
torch. The function that selects an architecture's codes stands in `sae.sparsity`, under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of the frontier, and how figures draw it: SAEs in colour, baselines in ink, distinguished by marks."""

    name: str  # in study files
    label: str  # in figures
    legend: int  # its place in legends
    colour: str  # its name in the report's palette
    mark: str  # matplotlib's marker, one of report.drawing.MARKS
    dash: str = ""  # lengths of dashes and gaps; "" is a solid line


@dataclass(frozen=True)
class Parameter:
    """A setting of some architectures alone."""

    type: Any  # with its limits, as pydantic reads them
    default: Any
    description: str
    refusal: str  # the error for another architecture: {owners} have the parameter, {name} has not
    check: Callable[[Any, int], None] | None = None  # of a value that is set, with the width; raises ValueError


@dataclass(frozen=True, kw_only=True)
class Architecture(Method):
    """An architecture of SAEs: the rule by which codes become sparse."""

    #: Initial weight of the sparsity penalty; None where codes are kept by number, and there is no penalty.
    first_penalty: float | None = None
    #: "row": the k largest codes of each row are kept, "batch": the k*B largest of a batch. Both have a sparse training
    #: step. None: any other rule, trained by the dense step.
    selection: Literal["row", "batch"] | None = None
    #: Inference keeps pre-activations above the threshold: 0, learned with the weights, or calibrated on all training
    #: rows. "none": inference selects as training does.
    threshold: Literal["zero", "learned", "calibrated", "none"]
    #: A foreign state dict that holds no thresholds can be read as this architecture.
    foreign: bool = False
    parameters: dict[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BaselineRow(Method):
    """A baseline, which SAEs are compared with; `sae.baselines` has the class."""

    one_code: bool = False  # one code per row for every k


def check_prefixes(prefixes: tuple[int, ...], width: int) -> None:
    """Raise ValueError unless nested widths rise and end with the width."""
    if not prefixes or list(prefixes) != sorted(set(prefixes)) or prefixes[-1] != width:
        raise ValueError(f"prefixes is {list(prefixes)}; rising widths that end with the width, {width}, are allowed")


PENALTY = Parameter(
    Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
    None,
    "weight of the L1 (relu) or L0 (jumprelu) penalty; left out, it is steered until L0 is k",
    "penalty is for {owners}; {name} keeps k codes without one",
)
PREFIXES = Parameter(
    tuple[Annotated[int, Field(ge=1)], ...] | None,
    None,
    "nested widths of matryoshka, the last one `width`; left out: C/16 ... C/2, C",
    "prefixes are for {owners}; {name} has one dictionary",
    check_prefixes,
)

ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture(
            name="relu", label="ReLU + L1", legend=4, colour="sixth", mark="v",
            first_penalty=1e-2, threshold="zero", foreign=True, parameters={"penalty": PENALTY},
        ),
        Architecture(
            name="topk", label="TopK", legend=1, colour="second", mark="s",
            selection="row", threshold="none", foreign=True,
        ),
        Architecture(
            name="batchtopk", label="BatchTopK", legend=0, colour="first", mark="o",
            selection="batch", threshold="calibrated", foreign=True,
        ),
        Architecture(
            name="jumprelu", label="JumpReLU", legend=3, colour="fifth", mark="D",
            first_penalty=1e-2, threshold="learned", parameters={"penalty": PENALTY},
        ),
        Architecture(
            name="matryoshka", label="Matryoshka", legend=2, colour="fourth", mark="^",
            selection="batch", threshold="calibrated", parameters={"prefixes": PREFIXES},
        ),
    )
}  # fmt: skip
BASELINES: dict[str, BaselineRow] = {
    row.name: row
    for row in (
        BaselineRow(name="pca", label="PCA", legend=100, colour="ink", mark="s", dash="6 3"),
        BaselineRow(name="ica", label="ICA", legend=101, colour="ink", mark="D", dash="2 2"),
        BaselineRow(name="nmf", label="NMF (±)", legend=102, colour="ink", mark="^", dash="6 2 2 2"),
        BaselineRow(name="kmeans", label="k-means", legend=103, colour="ink", mark="x", one_code=True),
        BaselineRow(name="spherical", label="spherical k-means", legend=104, colour="muted", mark="v", dash="6 3"),
        BaselineRow(name="random", label="random directions", legend=106, colour="muted", mark="+", dash="6 2 2 2"),
        BaselineRow(name="sample", label="data sample", legend=105, colour="muted", mark="o", dash="2 2"),
    )
}
METHODS: dict[str, Method] = {**ARCHITECTURES, **BASELINES}
PARAMETERS = {name: parameter for row in ARCHITECTURES.values() for name, parameter in row.parameters.items()}
TOPK_FAMILY = tuple(name for name, row in ARCHITECTURES.items() if row.first_penalty is None)  # keep a number of codes
PENALISED = tuple(name for name in ARCHITECTURES if name not in TOPK_FAMILY)


def check_parameters(architecture: str, width: int, values: dict[str, Any]) -> None:
    """Check the values of PARAMETERS that are set. Raises ValueError for one that belongs to another architecture."""
    for name, value in values.items():
        parameter = PARAMETERS[name]
        if value == parameter.default:
            continue
        if name not in ARCHITECTURES[architecture].parameters:
            owners = " and ".join(row.name for row in ARCHITECTURES.values() if name in row.parameters)
            raise ValueError(parameter.refusal.format(owners=owners, name=architecture))
        if parameter.check is not None:
            parameter.check(value, width)
