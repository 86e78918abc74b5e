"""How an SAE is trained: every setting with its type, default, limits and description. Imports no torch.

The study file, `sae.train` and `config.json` take their settings from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from sae.architectures import ARCHITECTURES, PARAMETERS, PENALISED, check_parameters

#: Settings of an SAE in the first release, in the order in which pages show them. They are always written and hashed.
#: Any other setting is left out while it has its default value. So a setting that is added later changes neither the
#: files nor the hashes (and with them the addresses) of existing SAEs.
FIRST_EDITION = (
    "name", "architecture", "width", "k", "epochs", "batch_size", "learning_rate", "decoder_bias", "image_share",
    "data_half", "auxk", "dead_after_epochs", "centring", "penalty", "prefixes", "encoder_dtype", "seeds", "retrain",
    "preprocessing",
)  # fmt: skip
#: Keys of FIRST_EDITION that the oldest config.json files lack: they were added later, before this rule existed.
NEWER = ("centring", "penalty", "prefixes", "encoder_dtype", "preprocessing")

FROZEN = ("frozen_decoder", "soft_frozen_decoder", "frozen_encoder")  # values of the setting `frozen`


def freezable(architecture: str) -> tuple[str, ...]:
    """The values of `frozen` that an architecture can have.

    An architecture whose encoder is pursuit learns little but its dictionary: without it there is no training.
    """
    return ("soft_frozen_decoder",) if ARCHITECTURES[architecture].pursuit else FROZEN


Share = Annotated[float, Field(ge=0, le=1)]
ImageShare = Share | Literal["natural"]
if TYPE_CHECKING:
    ArchitectureName = str
    FrozenName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]
    FrozenName = Literal[FROZEN]


class Stated(BaseModel):
    """Base class of settings. It is immutable, refuses unknown keys, and is dumped by the rule at FIRST_EDITION."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        entries: dict[str, Any] = dump(self)
        fields = type(self).model_fields
        first = {name: entries[name] for name in FIRST_EDITION if name in entries}
        later = {name for name in entries if name not in first and getattr(self, name) != fields[name].default}
        return first | {name: value for name, value in entries.items() if name in later}


if TYPE_CHECKING:

    class OwnParameters(Stated):
        """The parameters that only some architectures have."""

        penalty: float | None = None
        prefixes: tuple[int, ...] | None = None
        bandwidth: float = 2.0
        rescale: bool = True
else:
    OwnParameters = create_model(
        "OwnParameters",
        __base__=Stated,
        __module__=__name__,
        **{
            name: (parameter.type, Field(parameter.default, description=parameter.description))
            for name, parameter in PARAMETERS.items()
        },
    )


class Settings(OwnParameters):
    """How an SAE is trained. Raises ValueError, naming the field and what is allowed."""

    architecture: ArchitectureName = Field(
        "batchtopk",
        description=f"how codes become sparse; {' and '.join(PENALISED)} by a penalty, the others by keeping k codes",
    )
    width: int = Field(ge=2, le=2**24, description="concepts in the dictionary")
    k: int = Field(
        ge=1, description="concepts per row, on average; a penalty that is left out is adjusted until L0 is k"
    )
    # sae.budget has the rules for "auto".
    epochs: Annotated[int, Field(ge=1, le=10**6)] | Literal["auto"] = Field(
        "auto", description="an epoch is as many draws as there are training rows; auto chooses by their number"
    )
    batch_size: Annotated[int, Field(ge=2, le=2**24)] | Literal["auto"] = Field(
        "auto", description="rows per step; auto chooses by the number of training rows"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = Field(
        "auto", description="highest rate of the training; auto chooses by the steps and the width"
    )
    noise: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="standard deviation of random noise that is added to a row each time it is drawn, as a share of "
        "that of the training rows; auto chooses by the epochs",
    )
    decoder_bias: bool = Field(
        True, description="whether the decoder adds a vector, which starts at the geometric median of the rows"
    )
    init: Literal["within", "random", "data", "differences"] = Field(
        "within",
        description="directions that atoms start in: differences of two rows of one modality, random ones, rows, or "
        "differences of any two rows",
    )
    image_share: ImageShare = Field(0.5, description="share of images in the training mixture")
    auxk: float = Field(
        1 / 32,
        ge=0,
        allow_inf_nan=False,
        description="weight of the auxiliary loss; with 0 there is none, and no restart of dead concepts either",
    )
    # A longer time has no effect, since embeddings need only short trainings. A shorter time makes rare concepts dead.
    dead_after_epochs: float = Field(
        0.5, ge=0.1, le=1, description="epochs after which a concept that hardly fires is dead to AuxK and restarts"
    )
    k_aux: int | None = Field(
        None, ge=1, description="dead concepts per row that AuxK uses; default: half the dimension"
    )
    encoder: Literal["own", "pursuit"] = Field(
        "own",
        description="how the trained SAE encodes rows: with its own encoder, or by non-negative matching pursuit with "
        "its dictionary, k steps per row; training is the same",
    )
    calibration_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="share of the groups of images (at most 65,536 rows) that no gradient step uses: the threshold, or"
        " the biases of relu, are calibrated on them; if it is 0, or they are fewer than 64 rows, on the rows of the"
        " gradient steps",
    )
    frozen: FrozenName | None = Field(
        None,
        description="the part that is never learned, for an SAE that others are compared with: frozen_decoder (atoms"
        " stay at their start), soft_frozen_decoder (atoms stay within a cosine of .8 of it) or frozen_encoder",
    )
    centring: bool = Field(False, description="subtract each modality's mean from its rows: an ablation")
    # On a CPU that multiplies bfloat16 natively, the sparse step uses this dtype for AuxK too.
    encoder_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="dtype that rows and weights are rounded to for the encoder's product"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.k > self.width:
            raise ValueError(f"k is {self.k}, more than the width {self.width}")
        check_parameters(self.architecture, self.width, {name: getattr(self, name) for name in PARAMETERS})
        if self.frozen is not None and self.frozen not in freezable(self.architecture):
            raise ValueError(
                f"frozen is {self.frozen}: {self.architecture} encodes with its dictionary and has no encoder, so "
                f"{' and '.join(freezable(self.architecture))} is allowed"
            )
        return self

    def nested_widths(self) -> tuple[int, ...]:
        """Widths of the nested dictionaries, of which the last is C. An architecture without prefixes has only C."""
        if "prefixes" not in ARCHITECTURES[self.architecture].parameters:
            return (self.width,)
        return self.prefixes or tuple(sorted({max(1, self.width // part) for part in (16, 8, 4, 2, 1)}))
