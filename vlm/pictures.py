"""Decoding of a file's bytes into an RGB picture, the same for every model.

Nothing is guessed: a picture that cannot be decoded whole raises `DecodeError`, with a cause that can be counted. Only
raster formats are opened, since Pillow starts other programs for some others (Ghostscript for EPS).
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from importlib.util import find_spec

from PIL import Image, UnidentifiedImageError, features

from vlm.formats import format_of, without_metadata

#: Pillow's limit against decompression bombs. Up to twice this limit Pillow only warns; here more pixels are an error.
MAX_PIXELS = 89_478_485
#: The formats that are opened, by Pillow's names: raster formats that Pillow decodes itself, without another program.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "CUR", "ICNS", "PSD", "QOI",
    "SGI", "DDS", "DIB", "PCX", "TGA",
)  # fmt: skip
HEIC = "HEIC: pip install -c constraints.txt -e '.[heic]'"  # in the folder of the checkout
_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)
_LONGEST_REASON = 200  # characters of an error that are kept
_ORDINARY = 128 << 20  # bytes that decoding a picture of ten million pixels takes at most


class DecodeError(ValueError):
    """The bytes are no usable picture. `cause` is one of a few fixed phrases, by which failures can be counted."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture into RGB, upright, on white.

    Transparent parts are blended with white, because dropping the alpha channel would show the colours under it. The
    EXIF orientation is applied; a picture with broken EXIF is not turned. An animation gives its first frame. The
    picture is not resized.

    Raises `DecodeError` with one of the causes "empty file", "not an image", "format not read", "too many pixels",
    "corrupt image", "unsupported pixels" (floating point, or integers of more than 16 bits, whose value for white is
    not known), and "out of memory" (this picture takes more memory than there is). Raises MemoryError when there is not
    even memory for an ordinary picture: then the machine is at fault, not the picture.
    """
    return _whole(data, max_pixels, draft=False)[0]


def measure(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of the picture that `decode` would return, found in less time.

    The same code as in `decode` runs, with the same errors, but a JPEG is decoded at an eighth of its width and height.
    The entropy-coded data of the JPEG is still read to the end, so that a truncated or corrupt file is detected. Only
    the inverse cosine transforms are left out, which take three quarters of the time of a full decoding.
    """
    return _whole(data, max_pixels, draft=True)[1]


def reason(error: BaseException) -> str:
    """The first line of an error's message, cut to 200 characters; its type if it has no message."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST_REASON]
    # An address in memory would give every run another ledger.
    return re.sub(r" at 0x[0-9a-f]+", "", text).encode(errors="replace").decode()


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that this installation opens. HEIF is one of them where the package pillow-heif is installed."""
    Image.init()
    found = [name for name in FORMATS if name in Image.OPEN and (name != "AVIF" or features.check("avif"))]
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found.append("HEIF")
    return tuple(found)


def open_raster(data: bytes) -> Image.Image:
    """Open a picture of one of `formats()`; no other format is tried. Raises the errors of `PIL.Image.open`."""
    return Image.open(io.BytesIO(data), formats=formats())


def plain_jpeg(data: bytes, max_pixels: int) -> Image.Image | None:
    """A JPEG in RGB or grey, opened but not decoded, which another decoder may decode. None for all other pictures.

    Also None for a picture that `decode` refuses by its header, since `decode` states the cause.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        image = _opened(data, max_pixels)
    except DecodeError:
        return None
    return image if image.format == "JPEG" and image.mode in ("RGB", "L") else None


def turned(picture: Image.Image, opened: Image.Image) -> Image.Image:
    """A decoded picture, turned as the EXIF orientation of its file says."""
    turn = _orientation(opened)
    return picture.transpose(_TURNS[turn]) if turn in _TURNS else picture


def upright(image: Image.Image) -> Image.Image:
    """A loaded picture, turned as its EXIF orientation says. A picture with broken EXIF is not turned."""
    return turned(image, image)


def _whole(data: bytes, max_pixels: int, draft: bool) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, and its size as `decode` returns it. With `draft`, the picture itself may be smaller than that."""
    try:
        return _decoded(data, max_pixels, draft)
    except DecodeError as error:
        bare = without_metadata(data) if error.cause in ("corrupt image", "not an image") else None
        if bare is None:
            raise
    return _decoded(bare, max_pixels, draft)


def _decoded(data: bytes, max_pixels: int, draft: bool) -> tuple[Image.Image, tuple[int, int]]:
    image = _opened(data, max_pixels)
    stated = image.size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about broken EXIF blocks of otherwise valid pictures
            if draft:
                image.draft(image.mode, (1, 1))
            drafted = image.size != stated
            if image.format != "PSD":  # whose frames count from 1; it opens at all layers joined
                image.seek(0)
            image.load()
            turn = _orientation(image)
            width, height = stated if drafted else _checked(image.size, max_pixels)
            picture = _on_white(image)
            if turn in _TURNS:
                picture = picture.transpose(_TURNS[turn])
    except DecodeError:
        raise
    except Exception as error:  # the decoders raise many kinds of errors on broken data
        raise _failure(error) from None
    return picture, (height, width) if turn in _QUARTER_TURNS else (width, height)


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """Open a picture and check it against the size limit. Only its header is read."""
    if not data:
        raise DecodeError("empty file")
    known = format_of(data)
    if known is not None and known not in formats():
        raise DecodeError("format not read", HEIC if known == "HEIF" else known)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the check below raises an error
            image = open_raster(data)
    except Image.DecompressionBombError as error:
        raise DecodeError("too many pixels", str(error)) from None
    except UnidentifiedImageError:
        cause = "not an image" if known is None else "corrupt image"
        raise DecodeError(cause, f"{len(data)} bytes" if known is None else f"{known}, {len(data)} bytes") from None
    except Exception as error:  # the format plugins raise many kinds of errors on a broken header
        raise _failure(error) from None
    _checked(image.size, max_pixels)
    return image


def _failure(error: Exception) -> DecodeError:
    """The failure of a picture whose decoding raised an error. Raises MemoryError when the machine is at fault."""
    if isinstance(error, Image.DecompressionBombError):
        return DecodeError("too many pixels", reason(error))
    if isinstance(error, MemoryError):
        bytearray(_ORDINARY)  # raises MemoryError when there is no memory for an ordinary picture
        return DecodeError("out of memory", "decoding this picture takes more memory than this process may use")
    return DecodeError("corrupt image", reason(error))


def _checked(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    width, height = size
    if width * height > max_pixels:
        raise DecodeError("too many pixels", f"{width} x {height}, allowed are {max_pixels}")
    if width < 1 or height < 1:
        raise DecodeError("corrupt image", f"{width} x {height} pixels")
    return size


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. It is 1 if the EXIF block cannot be read or holds another value.

    `ImageOps.exif_transpose` is not used: it writes the other tags again, and fails when one of them is not valid.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # EXIF blocks are parsed in Python, which raises many kinds of errors on broken ones
        return 1


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

    values = np.asarray(image)
    if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise DecodeError("unsupported pixels", f"mode {image.mode}: allowed are integers of at most 16 bits")
    shift = 8 if image.mode != "I" or values.max(initial=0) > 255 else 0
    return Image.fromarray((values >> shift).astype(np.uint8))
