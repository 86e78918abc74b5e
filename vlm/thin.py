"""Pictures so long and thin that preprocessing would make huge pictures of them: they are cut or shrunk beforehand.

A preprocessing that resizes the shortest side to 224 pixels makes 14.5 million x 224 pixels (9 GB) of a picture of
65,000 x 1, of which it keeps the centre of 224 x 224. Every other picture is returned as it is, so that its embedding
does not change. The bound is the limit of decoding itself: no picture in between may have more than MAX_PIXELS pixels.
So only pictures that are longer than 1,783 times their shorter side are cut at 224 pixels, and 606 times at 384.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from vlm.pictures import MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

#: Rows of a picture that is resized without a crop. Pillow and torch resize the width first, so that a picture of 1 x
#: 80 million pixels becomes one of 224 x 80 million in between. With 2^17 rows, a width of 682 stays in the bound.
TALLEST = 2**17
_REACH = 4  # bicubic interpolation reads 2 pixels on each side; 4 also cover the rounding of the resized length


class Crop(NamedTuple):
    """A preprocessing that resizes a picture by one factor, to cover `cover`, and keeps its centre of size `window`."""

    cover: tuple[int, int]  #: (width, height) that the resized picture covers exactly in one dimension
    window: tuple[int, int]  #: (width, height) of the centre that is kept


def centre(image: Image.Image, crop: Crop, limit: int = MAX_PIXELS) -> Image.Image:
    """The picture, or the part of it that reaches the model if resizing the whole takes more than `limit` pixels.

    The part is centred to half a pixel, and wider than what is kept by the reach of the interpolation.
    """
    width, height = image.size
    scale = max(crop.cover[0] / width, crop.cover[1] / height)
    if width * height * scale * scale <= limit:
        return image
    margin = math.ceil(_REACH * max(1.0, 1 / scale))
    box: list[int] = []
    for length, kept in zip(image.size, crop.window, strict=True):
        part = max(math.ceil(kept / scale), min(image.size)) + 2 * margin
        part += (length - part) % 2  # with equal parity, the centre of the part is the centre of the picture
        start = max(0, (length - part) // 2)
        box += [start, length - start]
    return image.crop((box[0], box[2], box[1], box[3]))


def whole(image: Image.Image, longest: int | None = None, tallest: int = TALLEST) -> Image.Image:
    """The picture for a preprocessing that keeps all of it, shrunk in one dimension if it is extremely long and thin.

    longest: the preprocessing resizes the longer side to this length. A shorter side that would be rounded to no pixel
        becomes one pixel.
    """
    width, height = image.size
    if longest is not None and round(min(width, height) * longest / max(width, height)) < 1:
        return image.resize((longest, 1) if width > height else (1, longest))
    return image.resize((width, tallest)) if height > tallest and width < height else image
