"""Pictures so long and thin that preprocessing would make huge pictures of them: they are resized here, and as exactly.

A preprocessing that resizes the shortest side to 224 pixels makes 14.5 million x 224 pixels (9 GB) of a picture of
65,000 x 1, of which it keeps the centre of 224 x 224. Here only this centre is computed, by the same filter at the same
positions, so that the preprocessing gets a picture that it leaves as it is. Every picture whose resizing takes few
pixels is returned as it is: at 224 pixels, those up to 167 times as long as their shorter side, and at 384 up to 56.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

MOST = 2**23  # pixels of a resized picture up to which nothing is done; Pillow takes 34 MB for them
#: Rows of a picture that is resized to a size that depends on its own. Pillow and torch resize the width first, so that
#: a picture of 1 x 80 million pixels becomes one of 16 x 80 million in between.
TALLEST = 2**17
_REACH = 4  # Pillow's widest filter reads 3 pixels on each side
BILINEAR, BICUBIC = 2, 3  # Pillow's numbers of the filters


class Crop(NamedTuple):
    """A preprocessing that resizes a picture by one factor, to cover `cover`, and keeps its centre of size `window`."""

    cover: tuple[int, int]  #: (width, height) that the resized picture covers exactly in one dimension
    window: tuple[int, int]  #: (width, height) of the centre that is kept
    resample: int = BICUBIC  #: Pillow's number of the filter
    rounds: bool = False  #: a centre between two pixels is rounded to an even start (torchvision), or down

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of a resized picture, rounded as torchvision and transformers do for a square `cover`.

        For another `cover`, as open_clip does.
        """
        width, height = size
        if self.cover[0] == self.cover[1]:
            edge, long = self.cover[0], int(self.cover[0] * max(size) / min(size))
            return (long, edge) if width > height else (edge, long)
        ratio = min(width / self.cover[0], height / self.cover[1])
        return round(width / ratio), round(height / ratio)

    def start(self, length: int, kept: int) -> int:
        """First pixel of the centre of `kept` out of `length` pixels."""
        return round((length - kept) / 2) if self.rounds else (length - kept) // 2


def centre(image: Image.Image, crop: Crop, most: int = MOST) -> Image.Image:
    """The picture, or the centre of the resized picture if resizing the whole would make more than `most` pixels.

    The preprocessing neither resizes this centre nor crops more than its margin. The width is resized first, as Pillow
    and torch do.
    """
    resized = crop.resized(image.size)
    if resized[0] * resized[1] <= most:
        return image
    spans = [_span(*each, crop) for each in zip(image.size, resized, crop.cover, crop.window, strict=True)]
    (left, right, width, x), (upper, lower, height, y) = spans
    part = image.crop((left, upper, right, lower))
    part = part.resize((width, part.height), crop.resample, box=(x[0], 0, x[1], part.height))
    return part.resize((width, height), crop.resample, box=(0, y[0], width, y[1]))


def _span(length: int, resized: int, edge: int, kept: int, crop: Crop) -> tuple[int, int, int, tuple[float, float]]:
    """Where the centre lies in one dimension of a picture of `length` pixels that is `resized`.

    Returns (first, last, pixels of the centre, (begin, end) within first to last). Pillow's filter reads beyond begin
    and end, so first and last are further out by as much; and Pillow holds places as float32, so they begin near 0.
    """
    part = min(resized, max(edge, kept))
    begin = crop.start(resized, kept) - crop.start(part, kept)
    scale = length / resized
    reach = math.ceil(_REACH * max(1.0, scale))
    first = max(0, math.floor(begin * scale) - reach)
    last = min(length, math.ceil((begin + part) * scale) + reach)
    return first, last, part, (begin * scale - first, min((begin + part) * scale, length) - first)


def squashed(image: Image.Image, size: tuple[int, int], resample: int = BICUBIC, most: int = MOST) -> Image.Image:
    """The picture for a preprocessing that resizes it to `size` (width, height), whatever its shape.

    A picture so high that resizing its width first would make more than `most` pixels is first resized in height. Both
    orders give the same, up to the rounding of pixels in between.
    """
    width, height = image.size
    if width < size[0] and height > size[1] and size[0] * height > most:
        return image.resize((width, size[1]), resample)
    return image


def fitted(image: Image.Image, longest: int, resample: int = BICUBIC) -> Image.Image:
    """The picture for a preprocessing that resizes its longer side to `longest` pixels.

    A shorter side that would be rounded to no pixel becomes one pixel.
    """
    width, height = image.size
    if round(min(width, height) * longest / max(width, height)) >= 1:
        return image
    return image.resize((longest, 1) if width > height else (1, longest), resample)


def bounded(image: Image.Image, tallest: int = TALLEST) -> Image.Image:
    """The picture for a preprocessing that resizes it to a bounded number of pixels, of the picture's own shape."""
    width, height = image.size
    return image.resize((width, tallest)) if height > tallest and width < height else image


def unchanged(image: Image.Image) -> Image.Image:
    """The picture, for a preprocessing that does not resize."""
    return image
