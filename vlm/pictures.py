"""Decoding of a file's bytes into an RGB picture, the same for every model.

Nothing is guessed: a picture that cannot be decoded whole raises `DecodeError`, with a cause that can be counted.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

#: Pillow's limit against decompression bombs. Up to twice this limit Pillow only warns; here more pixels are an error.
MAX_PIXELS = 89_478_485
_ORIENTATION = 0x0112  # EXIF tag; the values 5 to 8 are quarter turns
_QUARTER_TURNS = (5, 6, 7, 8)


class DecodeError(ValueError):
    """The bytes are no usable picture. `cause` is one of a few fixed phrases, by which failures can be counted."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture into RGB, upright, on white.

    Transparent parts are blended with white, because dropping the alpha channel would show the colours under it. The
    EXIF orientation is applied. An animation gives its first frame. The picture is not resized.

    Raises `DecodeError` with one of the causes "empty file", "not an image", "too many pixels", "corrupt image",
    "unsupported pixels" (floating point, or integers of more than 16 bits, whose value for white is not known).
    """
    image = _opened(data, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about broken EXIF blocks of otherwise valid pictures
            image.seek(0)
            image.load()
            return _on_white(ImageOps.exif_transpose(image))
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError("corrupt image", str(error)) from None


def measure(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of the picture that `decode` would return, found in less time.

    Raises the same errors as `decode`, since the whole file is decoded, a JPEG at an eighth of its width and height.
    The entropy-coded data of the JPEG is still read to the end, so that a truncated or corrupt file is detected. Only
    the inverse cosine transforms are left out, which take three quarters of the time of a full decoding.
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
    """Open a picture and check it against the size limit. Only its header is read."""
    if not data:
        raise DecodeError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the check below raises an error
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DecodeError("too many pixels", str(error)) from None
    except UnidentifiedImageError:
        raise DecodeError("not an image", f"{len(data)} bytes") from None
    except Exception as error:  # the format plugins raise many kinds of errors on a broken header
        raise DecodeError("corrupt image", str(error)) from None
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError("too many pixels", f"{width} x {height}, allowed are {max_pixels}")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """The picture in RGB, with its transparent parts blended with white."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Convert a 16-bit picture to 8-bit grey. Pillow's own conversion clips at 255 and makes most pixels white.

    Values of mode I;16 reach 65,535 and are always scaled. Mode I may hold 8-bit values: a picture of this mode is
    scaled only when one of its values is above 255.
    """
    import numpy as np

    values = np.asarray(image).astype(np.int64) if image.mode != "F" else np.full(1, -1)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise DecodeError("unsupported pixels", f"mode {image.mode}: allowed are integers of at most 16 bits")
    shift = 8 if image.mode != "I" or values.max(initial=0) > 255 else 0
    return Image.fromarray((values >> shift).astype(np.uint8))
