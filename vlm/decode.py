"""From a file's bytes to an RGB picture, the same way for every model.

Never guesses: what cannot be decoded whole is a `DecodeError` with a cause that can be counted.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

#: Pillow's own limit guards against decompression bombs only with a warning up to twice the size; this one refuses.
MAX_PIXELS = 89_478_485


class DecodeError(ValueError):
    """Bytes that are no usable picture: `cause` is a short fixed phrase to count by, the message says the rest."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


def decode(data: bytes) -> Image.Image:
    """Decode a picture into RGB, upright, on white.

    Transparency is flattened on white, since dropping the alpha channel bares whatever colours lie under it; the EXIF
    orientation is applied; of an animation the first frame is taken. The size in pixels stays.

    Raises `DecodeError` with one of the causes "empty file", "not an image", "too many pixels", "corrupt image".
    """
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
    if width * height > MAX_PIXELS:
        raise DecodeError("too many pixels", f"{width} x {height}, allowed are {MAX_PIXELS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF blocks of sound pictures
            image.seek(0)
            image.load()
            return _on_white(ImageOps.exif_transpose(image))
    except Exception as error:
        raise DecodeError("corrupt image", str(error)) from None


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
    """8-bit grey of a 16-bit or 32-bit picture; Pillow's own conversion clips at 255 and leaves mostly white."""
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    scale = 256.0 if values.max(initial=0) > 255 else 1.0
    return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))
