"""Decoding: every picture becomes upright RGB on white, everything else an error with a cause."""

import io

import numpy as np
import pytest
from PIL import Image

from vlm import DecodeError, decode, measure


def encoded(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def corners(data: bytes) -> list[tuple[int, ...]]:
    image = decode(data)
    assert image.mode == "RGB"
    return [image.getpixel((0, 0)), image.getpixel((image.width - 1, 0))]


def test_transparent_pixels_become_white_whatever_lies_under_them() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 255))
    for form in ("png", "webp"):
        options = {"lossless": True} if form == "webp" else {}
        assert corners(encoded(image, form, **options)) == [(255, 255, 255), (200, 0, 0)]


def test_half_transparency_is_blended() -> None:
    assert decode(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "png")).getpixel((0, 0)) == (127, 127, 127)


def test_palette_with_transparency_is_flattened_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    assert corners(encoded(image, "png", transparency=0)) == [(255, 255, 255), (200, 0, 0)]
    assert corners(encoded(image, "gif", transparency=0)) == [(255, 255, 255), (200, 0, 0)]


def test_grey_with_alpha_is_flattened_on_white() -> None:
    assert decode(encoded(Image.new("LA", (1, 1), (0, 0)), "png")).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    image = decode(encoded(Image.fromarray(values), "png"))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    assert decode(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "jpeg")).getpixel((4, 4)) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF orientation: turn by 90 degrees clockwise
    assert decode(encoded(Image.new("RGB", (6, 2)), "jpeg", exif=exif)).size == (2, 6)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for form in ("gif", "webp", "png"):
        options = {"lossless": True} if form == "webp" else {}
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert corners(data)[0] == (255, 0, 0)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif"])
def test_cut_short_is_corrupt(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(DecodeError) as caught:
        decode(data[: len(data) // 2])
    assert caught.value.cause in ("corrupt image", "not an image")


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty file"),
        (b"<html>404</html>", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (b"\0" * 100, "not an image"),
    ],
)
def test_what_is_no_picture_has_a_cause(data: bytes, cause: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert caught.value.cause == cause


@pytest.mark.parametrize("side", [9_500, 20_000])  # just above MAX_PIXELS, and above the limit where Pillow raises
def test_a_pixel_bomb_is_not_decoded(side: int) -> None:
    bomb = encoded(Image.new("1", (side, side)), "png")
    assert len(bomb) < 100_000
    with pytest.raises(DecodeError) as caught:
        decode(bomb)
    assert caught.value.cause == "too many pixels"


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.new("RGB", (60, 20)), "jpeg", exif=exif)


AS_USERS_HAVE_THEM = {
    "cmyk": encoded(Image.new("CMYK", (30, 20)), "jpeg"),
    "grey": encoded(Image.new("L", (30, 20)), "jpeg"),
    "palette": encoded(noise(30, 20).quantize(16), "png"),
    "16 bit": encoded(Image.fromarray(np.full((20, 30), 40_000, np.uint16)), "png"),
    "rgba": encoded(Image.new("RGBA", (30, 20), (0, 0, 0, 0)), "png"),
    "bilevel": encoded(Image.new("1", (30, 20)), "tiff"),
    "webp": encoded(noise(30, 20), "webp"),
    "gif": encoded(noise(30, 20), "gif", save_all=True, append_images=[noise(30, 20)]),
    "bmp": encoded(noise(30, 20), "bmp"),
    "progressive": encoded(noise(30, 20), "jpeg", progressive=True),
    "one pixel": encoded(Image.new("RGB", (1, 1)), "png"),
    "one pixel jpeg": encoded(Image.new("RGB", (1, 1)), "jpeg"),
    "20,000 wide": encoded(Image.new("RGB", (20_000, 3)), "jpeg"),
    "20,000 high": encoded(Image.new("RGB", (3, 20_000)), "png"),
    **{f"orientation {n}": turned(n) for n in range(1, 9)},
    "empty": b"",
    "page": b"<!doctype html><html><body>Sign in</body></html>",
    "cut jpeg": encoded(noise(300, 200), "jpeg")[:-400],
    "cut png": encoded(noise(300, 200), "png")[:-400],
    "cut webp": encoded(noise(300, 200), "webp")[:-400],
    "cut gif": encoded(noise(300, 200), "gif")[:-20_000],
    "float": encoded(Image.fromarray(np.ones((4, 4), np.float32)), "tiff"),
    "32 bit": encoded(Image.fromarray(np.full((4, 4), 100_000, np.int32)), "tiff"),
    "negative": encoded(Image.fromarray(np.full((4, 4), -5, np.int32)), "tiff"),
}


@pytest.mark.parametrize("name", AS_USERS_HAVE_THEM)
def test_measuring_agrees_with_decoding(name: str) -> None:
    data = AS_USERS_HAVE_THEM[name]
    try:
        expected: object = decode(data).size
    except DecodeError as error:
        expected = error.cause
    try:
        outcome: object = measure(data)
    except DecodeError as error:
        outcome = error.cause
    assert outcome == expected
    broken = {
        "empty": "empty file",
        "page": "not an image",
        "float": "unsupported pixels",
        "32 bit": "unsupported pixels",
    }
    if name in broken:
        assert outcome == broken[name]
    elif name.startswith("cut"):
        assert outcome in ("corrupt image", "not an image")
    elif name == "negative":
        assert outcome == "unsupported pixels"
    else:
        assert isinstance(outcome, tuple)


def test_a_dark_sixteen_bit_picture_stays_dark() -> None:
    image = decode(encoded(Image.fromarray(np.full((2, 2), 200, np.uint16)), "png"))
    assert image.getpixel((0, 0)) == (0, 0, 0)  # the grey is 200 of 65,535, not 200 of 255


def test_the_limit_of_pixels_is_the_study_s() -> None:
    data = encoded(Image.new("RGB", (100, 11)), "png")
    assert measure(data, max_pixels=1100) == (100, 11)
    for function in (measure, decode):
        with pytest.raises(DecodeError) as caught:
            function(data, max_pixels=1099)
        assert caught.value.cause == "too many pixels"
