"""From a file's bytes to an RGB picture, the same way for every model.

Never guesses: what cannot be decoded whole is a `DecodeError` with a cause that can be counted.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

#: Pillow's own limit guards against decompression bombs only with a warning up to twice the size; this one refuses.
MAX_PIXELS = 89_478_485
_ORIENTATION = 0x0112  # EXIF; 5 to 8 are turned by a quarter
_QUARTER_TURNS = (5, 6, 7, 8)


class DecodeError(ValueError):
    """Bytes that are no usable picture: `cause` is a short fixed phrase to count by, the message says the rest."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture into RGB, upright, on white.

    Transparency is flattened on white, since dropping the alpha channel bares whatever colours lie under it; the EXIF
    orientation is applied; of an animation the first frame is taken. The size in pixels stays.

    Raises `DecodeError` with one of the causes "empty file", "not an image", "too many pixels", "corrupt image",
    "unsupported pixels" (floating point, or integers of more than 16 bits: their white is not known).
    """
    image = _opened(data, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF blocks of sound pictures
            image.seek(0)
            image.load()
            return _on_white(ImageOps.exif_transpose(image))
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError("corrupt image", str(error)) from None


def measure(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of a picture as `decode` gives it, and the same errors, in less time.

    All of the file is decoded, but a JPEG at an eighth of its size: its entropy coding is still read to the end, so
    that a cut or corrupt file is found, while the transforms (three quarters of the time) are left out.
    """
    image = _opened(data, max_pixels)
    width, height = image.size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.draft(image.mode, (1, 1))
            image.seek(0)
            image.load()
            turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
            if image.mode in ("I", "F"):
                _from_deep_grey(image)
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError("corrupt image", str(error)) from None
    return (height, width) if turned else (width, height)


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """The picture with its header read and its size within the limit; no pixel is decoded yet."""
    if not data:
        raise DecodeError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning comes at our own limit, which raises below
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DecodeError("too many pixels", str(error)) from None
    except UnidentifiedImageError:
        raise DecodeError("not an image", f"{len(data)} bytes") from None
    except Exception as error:  # the format plugins raise whatever a broken header makes them trip over
        raise DecodeError("corrupt image", str(error)) from None
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError("too many pixels", f"{width} x {height}, allowed are {max_pixels}")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, with whatever is transparent blended with white."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """8-bit grey of a 16-bit picture; Pillow's own conversion clips at 255 and leaves mostly white.

    Mode I;16 is always on a scale to 65,535; in mode I, which also holds 8-bit values, one above 255 says so.
    """
    import numpy as np

    values = np.asarray(image).astype(np.int64) if image.mode != "F" else np.full(1, -1)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise DecodeError("unsupported pixels", f"mode {image.mode}: allowed are integers of at most 16 bits")
    shift = 8 if image.mode != "I" or values.max(initial=0) > 255 else 0
    return Image.fromarray((values >> shift).astype(np.uint8))
