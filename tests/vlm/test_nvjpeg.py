"""`decode = "nvjpeg"`: JPEGs go to the GPU's decoder, all else to Pillow. torchvision's CPU decoder plays nvJPEG."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from feed_support import BROKEN, ROWS
from PIL import Image

import vlm
from vlm import nvjpeg
from vlm.decoders import Work, fill, layout_of, slots_in
from vlm.pictures import MAX_PIXELS, DecodeError, decode
from vlm.spec import SpecError

NOISE = np.random.default_rng(0).integers(0, 255, (6, 10, 3), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE).resize((80, 48))


def coded(form: str, picture: Image.Image = PICTURE, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def turned_by(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return coded("jpeg", exif=exif)


class Played:
    """torchvision's decoder on the CPU. It lists what it was given, and refuses what is in `refused`."""

    def __init__(self, refused: tuple[bytes, ...] = ()) -> None:
        self.calls: list[list[bytes]] = []
        self.refused = refused

    def __call__(self, data: list[torch.Tensor]) -> list[torch.Tensor]:
        from torchvision.io import ImageReadMode, decode_jpeg

        self.calls.append([bytes(each.numpy()) for each in data])
        if set(self.refused) & set(self.calls[-1]):
            raise RuntimeError("Error while decoding JPEG images: 2")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode_jpeg(data, ImageReadMode.RGB, "cpu")


def both(data: list[bytes], played: Played, most: int = MAX_PIXELS) -> list[tuple[object, object]]:
    """What nvJPEG's way and Pillow's way give for each picture."""
    found = list(nvjpeg.by_nvjpeg(data, most, played, decode))
    expected: list[object] = []
    for each in data:
        try:
            expected.append(decode(each, most))
        except DecodeError as error:
            expected.append(error)
    return list(zip(found, expected, strict=True))


JPEGS = [coded("jpeg"), coded("jpeg", progressive=True), coded("jpeg", PICTURE.convert("L")), turned_by(6)]
OTHERS = [
    coded("png"), coded("webp"), coded("jpeg", PICTURE.convert("CMYK")), coded("gif"), BROKEN, b"",
    coded("mpo", save_all=True, append_images=[PICTURE]),
]  # fmt: skip


def test_jpegs_go_to_the_gpu_and_all_else_to_pillow() -> None:
    played = Played()
    pairs = both([*JPEGS, *OTHERS], played)
    assert played.calls == [JPEGS]
    for found, expected in pairs[: len(JPEGS)]:
        assert isinstance(found, Image.Image)
        assert isinstance(expected, Image.Image)
        assert (found.mode, found.size) == ("RGB", expected.size)
        assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 2
    assert pairs[3][0].size == (48, 80)  # type: ignore[attr-defined]
    for found, expected in pairs[len(JPEGS) :]:
        assert str(found) == str(expected) if isinstance(expected, DecodeError) else found == expected


def test_a_jpeg_that_the_gpu_refuses_is_decoded_by_pillow_and_the_others_are_not() -> None:
    cut = JPEGS[0][: len(JPEGS[0]) // 2]
    played = Played(refused=(JPEGS[1], cut))
    pairs = both([JPEGS[0], JPEGS[1], cut], played)
    assert played.calls == [[JPEGS[0], JPEGS[1], cut], [JPEGS[0]], [JPEGS[1]], [cut]]
    assert pairs[0][0].size == (80, 48)  # type: ignore[attr-defined]
    assert pairs[1][0] == pairs[1][1]
    assert str(pairs[2][0]) == str(pairs[2][1])
    assert isinstance(pairs[2][0], DecodeError)


def test_a_picture_beyond_the_limit_never_reaches_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    ((found, expected),) = both([JPEGS[0]], played, most=100)
    assert str(found) == str(expected) == "too many pixels: 80 x 48, allowed are 100"
    assert played.calls == []
    monkeypatch.setattr(nvjpeg, "AT_ONCE", 2 * 80 * 48)
    both([*JPEGS, JPEGS[0]], played)
    assert [len(call) for call in played.calls] == [2, 2, 1]


def test_a_gpu_without_memory_for_one_picture_is_an_error() -> None:
    def full(data: list[torch.Tensor]) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(nvjpeg.by_nvjpeg(JPEGS[:2], MAX_PIXELS, full, decode))


def test_what_is_decoded_lies_in_its_place_in_the_slot() -> None:
    layout = layout_of([ROWS._replace(resize=lambda picture: ROWS.resize(picture.resize((4, 4))))])
    view = ROWS._replace(resize=lambda picture: ROWS.resize(picture.resize((4, 4))))
    data = [OTHERS[0], BROKEN, JPEGS[0]]
    slots = [slots_in(torch.zeros(4096, dtype=torch.uint8), layout, 4, 1)[0] for _ in range(2)]
    for slot, jpegs in zip(slots, (None, Played()), strict=True):
        done = fill([view], slot, Work(0, [0, 2, 3], data, MAX_PIXELS), jpegs)
        assert done.failures == {2: {None: ("not an image", f"{len(BROKEN)} bytes")}}
    pillow, gpu = (slot[0]["rows"].int() for slot in slots)
    assert torch.equal(pillow[0], gpu[0])
    assert 0 < (pillow[3] - gpu[3]).abs().float().mean() + 1 < 3
    assert int(gpu[1].sum()) == 0


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_device_without_cuda_is_refused(device: str) -> None:
    with pytest.raises(SpecError, match=rf'needs a GPU of CUDA, and the device is {device}: use decode = "pillow"'):
        nvjpeg.jpegs_on(device)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support"),
        ImportError("No module named 'torchvision'"),
        AssertionError("Torch not compiled with CUDA enabled"),
    ],
)
def test_a_torchvision_without_nvjpeg_is_refused(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuses(data: list[torch.Tensor]) -> list[torch.Tensor]:
        raise error

    monkeypatch.setattr(nvjpeg, "_decoder_on", lambda device: refuses)
    with pytest.raises(SpecError, match=r'decode = "nvjpeg": torchvision cannot decode JPEGs on cuda:1 \(.*\): use'):
        nvjpeg.jpegs_on("cuda:1")


def test_a_machine_without_a_gpu_is_refused_by_the_real_decoder() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SpecError, match='decode = "nvjpeg": torchvision cannot decode JPEGs on cuda'):
        nvjpeg.jpegs_on("cuda")
    assert vlm.decode(JPEGS[0]).size == (80, 48)


def test_the_played_decoder_passes_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    monkeypatch.setattr(nvjpeg, "_decoder_on", lambda device: played)
    assert nvjpeg.jpegs_on("cuda") is played
    assert len(played.calls) == 1


def test_all_threads_together_hold_no_more_pixels_on_the_gpu_than_one_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads decode a batch each. Pixels lie on the played GPU from their decoding to the end of their copy."""
    from torchvision.io import ImageReadMode, decode_jpeg

    all_at_once, counting = threading.Barrier(4), threading.Lock()
    held, streams = [0], []

    class OnGpu:
        def __init__(self, pixels: torch.Tensor) -> None:
            self.pixels = pixels
            with counting:
                held.append(held[-1] + pixels[0].numel())

        def cpu(self) -> torch.Tensor:
            with contextlib.suppress(threading.BrokenBarrierError):
                all_at_once.wait(0.5)  # all threads meet here, unless something keeps them apart
            with counting:
                held.append(held[-1] - self.pixels[0].numel())
            return self.pixels

    def decoded(data: list[torch.Tensor], mode: ImageReadMode, device: str) -> list[OnGpu]:
        return [OnGpu(pixels) for pixels in decode_jpeg(data, mode, "cpu")]

    def stream(device: str) -> str:
        streams.append(device)
        return device

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr("torchvision.io.decode_jpeg", decoded)
    jpegs = nvjpeg._decoder_on("cuda:1")
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(lambda: list(nvjpeg.by_nvjpeg(JPEGS[:2], MAX_PIXELS, jpegs, decode))) for _ in range(4)]
        found = [run.result() for run in runs]
    assert all(isinstance(picture, Image.Image) for pictures in found for picture in pictures)
    assert (held[-1], max(held)) == (0, 2 * 80 * 48)
    assert streams == ["cuda:1"]
