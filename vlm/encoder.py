"""What every vision-language encoder offers, whichever library it comes from, and `load`, which finds it by a spec.

Knows nothing of stores, shards or pairs: pictures and strings in, unit vectors out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import; `import vlm` must not
    import numpy as np
    import torch
    from PIL import Image

DTYPES = ("float32", "bfloat16")
#: Pictures that `encode_images` preprocesses at a time: 64 x 3 x 224 x 224 floats are 38 MB.
IMAGE_BATCH = 64


class SpecError(ValueError):
    """A model spec, device or dtype that cannot be used: the message names it and what is allowed."""

    exit_code = 2


class Encoder(ABC):
    """A two-tower model with a joint space of `dim` dimensions.

    Every embedding is float32, from the projected (joint) space, finite, and of norm 1.
    """

    dim: int
    #: JSON-ready, without paths: what the model, its preprocessing and its tokenizer are, and the versions of
    #: the libraries that change results
    identity: dict[str, Any]
    device: str  #: where it runs: "auto" is resolved, so that a fall-back to the CPU is visible

    @abstractmethod
    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """One RGB picture of any size as a float32 tensor [3, H, W] on the CPU. May be called from many threads."""

    @abstractmethod
    def encode_pixels(self, batch: torch.Tensor) -> np.ndarray:
        """Preprocessed pictures [B, 3, H, W] to embeddings, float32 [B, dim]."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Strings to embeddings, float32 [B, dim], in order. What else is in the list makes no difference beyond
        floating-point tolerance."""

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures to embeddings, float32 [B, dim], in order."""
        import numpy as np
        import torch

        out = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), IMAGE_BATCH):
            chunk = images[start : start + IMAGE_BATCH]
            out[start : start + len(chunk)] = self.encode_pixels(torch.stack([self.preprocess(i) for i in chunk]))
        return out


def load(spec: str, device: str = "auto", dtype: str = "float32") -> Encoder:
    """The encoder that a spec names.

    Args:
        spec: `open_clip:NAME/PRETRAINED` or `open_clip:local-dir:PATH`.
        device: "auto" (CUDA when there is one, else the CPU) or a torch device name.
        dtype: "float32" or "bfloat16"; the latter casts the weights, since autocast would cast them at every call
            (measured 15.0 images/s against 38.1, ViT-B-32 on a CPU with AVX512-BF16).

    Raises `SpecError` for anything else, and for a folder or a pre-trained tag that is not there.
    """
    if dtype not in DTYPES:
        raise SpecError(f"dtype {dtype!r} of model {spec!r}: allowed are {', '.join(DTYPES)}")
    kind, _, rest = spec.partition(":")
    if kind != "open_clip" or not rest:
        raise SpecError(
            f"model spec {spec!r}: allowed are open_clip:NAME/PRETRAINED and open_clip:local-dir:PATH"
            + (" (a demo model is first made by a study, then loaded from its folder)" if kind == "demo" else "")
        )
    from vlm.open_clip import load_open_clip

    return load_open_clip(rest, device=device, dtype=dtype)
