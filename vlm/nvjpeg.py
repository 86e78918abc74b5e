"""Decoding of JPEGs on a GPU by nvJPEG, through torchvision. Every other picture is decoded by `vlm.pictures`.

The pixels differ slightly from those of Pillow. They are copied back to the host, where they are resized as all others,
since each family of models resizes in its own way, which is checked on the host.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from vlm.encoder import is_out_of_memory
from vlm.pictures import DecodeError, plain_jpeg, reason, turned
from vlm.spec import SpecError

if TYPE_CHECKING:
    import torch
    from PIL import Image

DECODES = ("pillow", "nvjpeg")  # what decodes JPEGs
#: From the bytes of JPEGs, uint8 [N] each, on the CPU, to their pixels, uint8 [3, H, W] each, on the CPU. Raises
#: RuntimeError if one of them cannot be decoded.
Jpegs = Callable[[list["torch.Tensor"]], list["torch.Tensor"]]
#: Pixels that lie on the GPU at once, of all threads: 200 MB. A picture of more pixels lies there alone.
AT_ONCE = 1 << 26


def jpegs_on(device: str) -> Jpegs:
    """What decodes JPEGs on a GPU. Raises `SpecError` if the device is no GPU of CUDA, or torchvision lacks nvJPEG."""
    if not device.startswith("cuda"):
        raise SpecError(f'decode = "nvjpeg" needs a GPU of CUDA, and the device is {device}: use decode = "pillow"')
    found = _decoder_on(device)
    try:
        found([_bytes(_tiny())])
    except (ImportError, AttributeError, RuntimeError, NotImplementedError, AssertionError) as error:
        raise SpecError(
            f'decode = "nvjpeg": torchvision cannot decode JPEGs on {device} ({reason(error)}): use decode = "pillow"'
        ) from error
    return found


def _decoder_on(device: str) -> Jpegs:
    """torchvision's decoder on a device, for one thread at a time, so that no more than `AT_ONCE` pixels lie there.

    It has a stream of its own, so that copies do not wait behind the forward passes. All threads share this stream,
    since torch keeps the memory that was freed on a stream for that stream.
    """
    alone = threading.Lock()
    streams: list[torch.cuda.Stream] = []  # empty until the first call

    def decoded(data: list[torch.Tensor]) -> list[torch.Tensor]:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        with alone, torch.cuda.device(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision names TorchCodec as its successor
            if not streams:
                streams.append(torch.cuda.Stream(device))
            with torch.cuda.stream(streams[0]):
                return [pixels.cpu() for pixels in decode_jpeg(data, ImageReadMode.RGB, device)]

    return decoded


def by_nvjpeg(
    data: Sequence[bytes], max_pixels: int, jpegs: Jpegs, decode: Callable[[bytes, int], Image.Image]
) -> Iterator[Image.Image | DecodeError]:
    """Yield each picture, in order, in RGB and upright, or its error.

    JPEGs in RGB or grey are decoded by `jpegs`, some at a time. All others, and those that `jpegs` refuses, are decoded
    by `decode`, which states the cause of a failure.
    """
    waiting: list[tuple[bytes, Image.Image | None]] = []
    pixels = 0
    for each in data:
        opened = plain_jpeg(each, max_pixels)
        size = 0 if opened is None else opened.width * opened.height
        if pixels + size > AT_ONCE:
            yield from _some(waiting, max_pixels, jpegs, decode)
            waiting, pixels = [], 0
        waiting.append((each, opened))
        pixels += size
    yield from _some(waiting, max_pixels, jpegs, decode)


def _some(
    waiting: Sequence[tuple[bytes, Image.Image | None]],
    max_pixels: int,
    jpegs: Jpegs,
    decode: Callable[[bytes, int], Image.Image],
) -> Iterator[Image.Image | DecodeError]:
    found = iter(_sound(jpegs, [_bytes(data) for data, opened in waiting if opened is not None]))
    for data, opened in waiting:
        pixels = None if opened is None else next(found)
        if pixels is not None and opened is not None and tuple(pixels.shape) == (3, opened.height, opened.width):
            yield turned(_picture(pixels), opened)
            continue
        try:
            yield decode(data, max_pixels)
        except DecodeError as error:
            yield error


def _sound(jpegs: Jpegs, data: list[torch.Tensor]) -> Sequence[torch.Tensor | None]:
    """The pixels of each JPEG; None for one that is refused. One that is refused fails a whole call.

    Raises the error of a GPU whose memory does not suffice for one picture: another decoder would give other pixels.
    """
    if not data:
        return []
    try:
        return jpegs(data)
    except RuntimeError as error:
        if len(data) > 1:
            return [_sound(jpegs, [each])[0] for each in data]
        if is_out_of_memory(error):
            raise
        return [None]


def _bytes(data: bytes) -> torch.Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _picture(pixels: torch.Tensor) -> Image.Image:
    """uint8 [3, H, W] as a picture."""
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _tiny() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (16, 16), "grey").save(out, "jpeg")
    return out.getvalue()
