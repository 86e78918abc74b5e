"""Weights of fewer bits and TF32: which bar holds, on which items, and what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CAPTIONS, build

import vlm
from vlm.encoder import Encoder, Tokens
from vlm.precision import CHECKED, LOWEST_COSINE, allow_tf32, cast_checked, make_ready, multiplying
from vlm.spec import SpecError


class Turning(Encoder):
    """An encoder of a plane whose embeddings are turned by an angle where it computes with fewer bits.

    The embedding of the picture of number n, and of the caption "n", is the same. Only that of number `only` is turned.
    """

    def __init__(self, angle: float, only: int = 0, device: str = "cpu") -> None:
        self.dim, self.device, self.dtype, self.identity = 2, device, torch.float32, {"dtype": "float32"}
        self.angle, self.only = angle, only
        self.model = torch.nn.Linear(1, 1)
        self.flags: list[tuple[bool, bool]] = []

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.tensor(float(image.getpixel((0, 0))[0]))  # type: ignore[index]

    def image_features(self, batch: Any) -> torch.Tensor:
        numbers = batch if isinstance(batch, torch.Tensor) else next(iter(batch.values()))
        return self._features(numbers)

    def pixel_features(self, inputs: Any) -> torch.Tensor:
        return self.image_features(self.pixels.finish(inputs))  # its device is played: nothing is copied there

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        numbers = torch.tensor([[int(text)] for text in texts])
        return Tokens({"ids": numbers}, torch.ones(len(texts), dtype=torch.int64), torch.zeros(len(texts)).bool())

    def token_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._features(inputs["ids"][:, 0].float())

    def _features(self, numbers: torch.Tensor) -> torch.Tensor:
        backends = torch.backends
        self.flags.append((backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32))
        few_bits = self.dtype != torch.float32 or backends.cuda.matmul.allow_tf32
        angles = numbers / 300 + self.angle * (numbers == self.only) * few_bits
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def pictures(count: int) -> Iterator[Image.Image]:
    return (Image.new("RGB", (2, 2), (number, 0, 0)) for number in range(count))


def angle_of(cosine: float) -> float:
    return float(np.arccos(cosine))


@pytest.mark.parametrize(("dtype", "sound", "bad"), [("float16", 0.99991, 0.99989), ("bfloat16", 0.9991, 0.9989)])
def test_the_bar_is_that_of_the_dtype(dtype: str, sound: float, bad: float) -> None:
    words = [str(number) for number in range(10)]
    encoder = Turning(angle_of(sound), only=9)
    assert cast_checked(encoder, lambda: pictures(10), words, dtype, "m") == pytest.approx(sound, abs=1e-6)
    assert encoder.identity["dtype"] == dtype
    with pytest.raises(
        SpecError, match=rf'^model m: with dtype = "{dtype}" an embedding .* cosine {bad:.5f} .* "float32"'
    ):
        cast_checked(Turning(angle_of(bad), only=9), lambda: pictures(10), words, dtype, "m")


@pytest.mark.parametrize(("place", "compared"), [(CHECKED - 1, True), (CHECKED, False)])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_first_256_items_of_each_modality_are_compared(
    modality: str, place: int, compared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOWEST_COSINE, "float16", 0.0)
    numbers = [0] * place + [200]  # the embedding of number 200 is turned by a half
    shown = numbers if modality == "image" else []
    given = [str(number) for number in (numbers if modality == "text" else [])]
    least = cast_lowest(Turning(0.5, only=200), shown, given)
    assert least == pytest.approx(np.cos(0.5) if compared else 1.0, abs=1e-6)


def cast_lowest(encoder: Encoder, numbers: list[int], texts: list[str]) -> float:
    def images() -> Iterator[Image.Image]:
        return (Image.new("RGB", (2, 2), (number, 0, 0)) for number in numbers)

    return cast_checked(encoder, images, texts, "float16", "m")


def test_an_embedding_that_overflows_names_what_to_use(tmp_path: Path) -> None:
    encoder = vlm.load(f"hf:{build('clip', tmp_path / 'clip')}")
    with torch.no_grad():
        encoder.model.text_projection.weight.mul_(1e6)
    with pytest.raises(SpecError, match=r'"float16" the model gave no finite .* use dtype = "float32" or "bfloat16"'):
        cast_checked(encoder, lambda: pictures(2), CAPTIONS, "float16", "m")


def test_on_a_cpu_nothing_is_compared_in_float32() -> None:
    encoder = Turning(0.0)
    make_ready(encoder, lambda: pytest.fail("asked for pictures"), ["1"], "float32", "m")
    assert encoder.identity == {"dtype": "float32"}


@pytest.mark.parametrize(("cosine", "safe"), [(0.99995, True), (0.9998, False)])
def test_tf32_is_used_where_it_is_safe_and_recorded(
    cosine: float, safe: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    encoder = Turning(angle_of(cosine), only=3, device="cuda:0")
    with caplog.at_level("INFO", "bridgescope"):
        make_ready(encoder, lambda: pictures(20), ["3", "4"], "float32", "m")
    assert encoder.identity == {"dtype": "float32", "tf32": safe}
    assert (
        f"TF32 is {'used' if safe else 'not used'}: lowest cosine to float32 among the first items {cosine:.5f}"
        in caplog.text
    )
    assert encoder.flags == [(False, False)] * 3 + [(True, True)] * 3
    encoder.encode_texts(["1"])
    assert encoder.flags[-1] == (safe, safe)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    make_ready(encoder, lambda: pytest.fail("asked for pictures again"), ["1"], "float32", "m")


@pytest.mark.parametrize("capability", [(7, 0), (8, 0)])
def test_older_gpus_have_no_tf32(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    encoder = Turning(0.0, device="cuda")
    make_ready(encoder, lambda: pictures(2), ["1"], "float32", "m")
    assert ("tf32" in encoder.identity) == (capability == (8, 0))


def test_settings_come_back_after_an_error() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), multiplying(not before):
        raise KeyError
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_a_real_encoder_computes_as_before_where_tf32_does_nothing(tmp_path: Path) -> None:
    encoder = vlm.load(f"hf:{build('clip', tmp_path / 'clip')}")
    images, texts = [*pictures(3)], CAPTIONS
    there = encoder.encode_images(images), encoder.encode_texts(texts)
    assert allow_tf32(encoder, lambda: iter(images), texts) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(encoder.encode_images(images), there[0])
    np.testing.assert_array_equal(encoder.encode_texts(texts), there[1])
