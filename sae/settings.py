"""How an SAE is trained: the numbers, and what is allowed."""

import math
from dataclasses import dataclass
from typing import Literal

from sae.sparsity import ARCHITECTURES, TOPK_FAMILY


@dataclass(frozen=True)
class Settings:
    """How an SAE is trained. Raises ValueError, naming the field and what is allowed."""

    width: int  # C, number of concepts
    k: int  # mean number of codes a row; for relu and jumprelu what the penalty is steered to
    epochs: int
    batch_size: int
    learning_rate: float
    architecture: str = "batchtopk"
    decoder_bias: bool = True
    image_share: float | Literal["natural"] = 0.5  # share of image rows in every batch
    auxk: float = 1 / 32  # weight of the auxiliary loss; 0 is off
    dead_after_epochs: float = 0.5  # a concept silent for so long is dead to AuxK
    k_aux: int | None = None  # dead concepts a row that AuxK uses; None is half the dimension
    centring: bool = False  # take each modality's mean off its rows
    penalty: float | None = None  # weight of L1 (relu) or L0 (jumprelu); None steers it until L0 is k
    prefixes: tuple[int, ...] | None = None  # nested widths (matryoshka); None is C/16, C/8, C/4, C/2, C
    # Of the encoder's product: rows and weights are rounded to it first. On a CPU that multiplies bfloat16 natively the
    # sparse step's AuxK follows.
    encoder_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.prefixes is not None:
            object.__setattr__(self, "prefixes", tuple(self.prefixes))  # a study file gives a list
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is {self.architecture!r}; allowed: {', '.join(ARCHITECTURES)}")
        if self.encoder_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"encoder_dtype is {self.encoder_dtype!r}; allowed: float32, bfloat16")
        for name in ("width", "k", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a whole number from 1 is allowed")
        if self.k > self.width:
            raise ValueError(f"k is {self.k}; at most the width, {self.width}, is allowed")
        self._check_numbers()
        self._check_architecture()

    def _check_numbers(self) -> None:
        if not (0 < self.learning_rate < math.inf):
            raise ValueError(f"learning_rate is {self.learning_rate}; a number above 0 is allowed")
        if self.image_share != "natural" and not (
            isinstance(self.image_share, int | float) and 0 <= self.image_share <= 1
        ):
            raise ValueError(f'image_share is {self.image_share!r}; a number from 0 to 1 or "natural" is allowed')
        if not (0 <= self.auxk < math.inf):
            raise ValueError(f"auxk is {self.auxk}; a weight from 0 (off) is allowed")
        if not (0.1 <= self.dead_after_epochs <= 1):
            # Longer windows never act in the short trainings that embeddings need; shorter ones call rare alive dead.
            raise ValueError(f"dead_after_epochs is {self.dead_after_epochs}; 0.1 to 1 is allowed")
        if self.k_aux is not None and self.k_aux < 1:
            raise ValueError(f"k_aux is {self.k_aux}; a whole number from 1, or None, is allowed")

    def _check_architecture(self) -> None:
        if self.penalty is not None:
            if self.architecture in TOPK_FAMILY:
                raise ValueError(f"penalty is for relu and jumprelu; {self.architecture} keeps k codes without one")
            if not (0 <= self.penalty < math.inf):
                raise ValueError(f"penalty is {self.penalty}; a weight from 0, or None, is allowed")
        if self.prefixes is None:
            return
        if self.architecture != "matryoshka":
            raise ValueError(f"prefixes are for matryoshka; {self.architecture} has one dictionary")
        rising = list(self.prefixes) == sorted(set(self.prefixes))
        if not self.prefixes or not rising or self.prefixes[0] < 1 or self.prefixes[-1] != self.width:
            raise ValueError(f"prefixes is {list(self.prefixes)}; rising widths that end with {self.width} are allowed")

    def nested_widths(self) -> tuple[int, ...]:
        """Widths of the nested dictionaries, the last one C; a single one for all but matryoshka."""
        if self.architecture != "matryoshka":
            return (self.width,)
        return self.prefixes or tuple(sorted({max(1, self.width // part) for part in (16, 8, 4, 2, 1)}))
