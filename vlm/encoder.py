"""The interface of vision-language encoders of any library. Encoders turn pictures and strings into unit vectors.

This module knows nothing of stores, shards or pairs.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vlm.pictures import DecodeError, reason
from vlm.pixels import Pixels, whole
from vlm.spec import SpecError

if TYPE_CHECKING:  # importing torch takes seconds; importing vlm must not
    import numpy as np
    import torch
    from PIL import Image

DTYPES = ("float32", "float16", "bfloat16")
#: Pictures that `encode_images` preprocesses at a time: 64 x 3 x 224 x 224 floats are 38 MB.
IMAGE_BATCH = 64
#: Captions in one forward pass; they are sorted by length, so that few are padded.
TEXT_BATCH = 64
PLAIN = (640, 480)  # size of a picture that every preprocessing must manage


class Tokens(NamedTuple):
    """Tokenized captions, the input of a text tower."""

    inputs: dict[str, torch.Tensor]  #: [B captions, L tokens] each: token ids, and a mask if the tower takes a mask
    lengths: torch.Tensor  #: int64 [B]: tokens before the padding; L if the tower attends to its padding
    truncated: torch.Tensor  #: bool [B]: captions longer than the context, truncated by the tokenizer

    def batch(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs of some rows, without the columns that are padding in all of them."""
        longest = int(self.lengths[rows].max())
        return {name: values[rows, :longest] for name, values in self.inputs.items()}

    def by_length(self) -> torch.Tensor:
        """Row numbers, shortest caption first."""
        import torch

        return torch.argsort(self.lengths, stable=True)


class Encoder(ABC):
    """A two-tower model with a joint space of `dim` dimensions.

    Every embedding is float32, in the projected (joint) space, finite, and of norm 1. Methods may be called from
    several threads at once, except `tokenize` and `cast`.
    """

    dim: int
    #: What identifies the encoder, JSON-ready and without paths: the model, its preprocessing, its tokenizer, and the
    #: versions of the libraries that change results.
    identity: dict[str, Any]
    device: str  #: a torch device name: "auto" is resolved, so that a fall-back to the CPU is visible
    model: Any
    dtype: torch.dtype

    @abstractmethod
    def preprocess(self, image: Image.Image) -> Any:
        """The input of the image tower for one RGB picture of any size, without the batch's dimension, on the CPU: a
        float32 tensor [3, H, W], or a dict of tensors. This is the library's own preparation, called whole."""

    @functools.cached_property
    def pixels(self) -> Pixels:
        """The preparation of pictures in two steps, whose result is that of `preprocess`; see `vlm.pixels`."""
        return whole(self.preprocess)

    @abstractmethod
    def image_features(self, batch: Any) -> torch.Tensor:
        """The image tower's projected output for a batch of the inputs that `preprocess` gives, not normalised:
        float32 [B, dim] on the encoder's device."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenize strings with the padding, truncation, lower-casing and end-of-text token of the model's family."""

    @abstractmethod
    def token_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The text tower's projected output for `Tokens.batch`, not normalised: float32 [B, dim] on the encoder's
        device."""

    def pixel_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`image_features` of a batch of what `pixels.resize` gives. The batch is copied to the device if need be."""
        moved = {name: values.to(self.device, non_blocking=True) for name, values in inputs.items()}
        return self.image_features(self.pixels.finish(moved))

    def encode_pixels(self, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """The embeddings of a batch of what `pixels.resize` gives, float32 [B, dim]."""
        return unit_rows(self.pixel_features(inputs), "pictures")

    def encode_tokens(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """The embeddings of a batch of tokens, float32 [B, dim]."""
        return unit_rows(self.token_features(inputs), "captions")

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """The embeddings of RGB pictures, float32 [B, dim], in order."""
        import numpy as np
        import torch

        out = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), IMAGE_BATCH):
            given = [self.pixels.resize(image) for image in images[start : start + IMAGE_BATCH]]
            batch = {name: torch.stack([each[name] for each in given]) for name in given[0]}
            out[start : start + len(given)] = self.encode_pixels(batch)
        return out

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """The text tower's projected output for strings, float32 [B, dim], not normalised, in order."""
        import torch

        if not texts:
            return torch.empty(0, self.dim)
        tokens = self.tokenize(texts)
        order = tokens.by_length()
        features = torch.cat([self.token_features(tokens.batch(rows)).cpu() for rows in order.split(TEXT_BATCH)])
        return torch.empty_like(features).index_copy_(0, order, features)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """The embeddings of strings, float32 [B, dim], in order. The embedding of a string does not depend on the
        others in the list, beyond floating-point tolerance."""
        return unit_rows(self.text_features(texts), "captions")

    def cast(self, dtype: str) -> None:
        """Cast the weights, and record the dtype in the identity. (Autocast would cast the weights at every call.)"""
        import torch

        self.dtype = getattr(torch, dtype)
        self.model = self.model.to(dtype=self.dtype)
        self.identity = {**self.identity, "dtype": dtype}


def prepared(
    resize: Callable[[Image.Image], Mapping[str, torch.Tensor]], image: Image.Image
) -> Mapping[str, torch.Tensor]:
    """`resize`, for a picture from outside. Raises `DecodeError` if it fails for this picture alone.

    If it fails for a plain grey picture too, then the model or the machine is at fault, and that error is raised.
    """
    from PIL import Image

    try:
        return resize(image)
    except Exception as error:  # the processors of the libraries raise many kinds of errors
        resize(Image.new("RGB", PLAIN, "grey"))
        cause = "out of memory" if is_out_of_memory(error) else "cannot be preprocessed"
        raise DecodeError(cause, f"{image.width} x {image.height}: {reason(error)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a batch was too large for its device."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def unit_rows(features: torch.Tensor, what: str) -> np.ndarray:
    """Rows divided by their norms, float32 on the CPU. Raises `FloatingPointError` when a row has no finite
    direction."""
    return finite_rows((features / features.norm(dim=1, keepdim=True)).cpu(), what)


def finite_rows(rows: torch.Tensor, what: str) -> np.ndarray:
    """Rows on the CPU as an array. Raises `FloatingPointError` when a value is not finite."""
    import torch

    bad = int((~torch.isfinite(rows.sum(dim=1))).sum())  # fifteen times as fast as looking at every value
    if bad:
        raise FloatingPointError(f"the model gave no finite embedding for {bad} of {len(rows)} {what}")
    return rows.numpy()


def resolve_device(device: str) -> str:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" means. Raises `SpecError` for an absent device."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # the device is unknown, absent or not built into torch
        there = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise SpecError(f"device {device!r} is not on this machine: allowed are {', '.join(there)}") from None
    return device
