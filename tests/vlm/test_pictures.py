"""Decoding: every picture becomes upright RGB on white, everything else an error with a cause."""

import io
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

import vlm.pictures
from vlm import DecodeError, decode, measure
from vlm.formats import without_metadata


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


def cause_of(data: bytes) -> str:
    causes = set()
    for function in (decode, measure):
        with pytest.raises(DecodeError) as caught:
            function(data)
        causes.add(str(caught.value))
    assert len(causes) == 1
    return causes.pop()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
BINARY_EPS = b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS
FTYP = b"\0\0\0\x18ftyp"
OTHERS = {
    "EPS": EPS,
    "EPS with a header": BINARY_EPS,
    "PDF": b"%PDF-1.7\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "SVG with a prologue": b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg/>',
    "JPEG XL": b"\xff\x0a" + bytes(40),
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "EMF": b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(60),
    "video": FTYP + b"isom\0\0\0\0mp42isom",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_have_a_cause_that_names_them(name: str) -> None:
    assert cause_of(OTHERS[name]) == f"format not read: {name.partition(' with')[0]}"


def test_heic_names_the_extra_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm.pictures, "formats", lambda: ("JPEG", "PNG"))
    install = "pip install -c constraints.txt -e '.[heic]'"
    assert cause_of(FTYP + b"heic\0\0\0\0mif1heic") == f"format not read: HEIC: {install}"
    assert cause_of(FTYP + b"mif1\0\0\0\0mif1avif") == "format not read: AVIF"


def test_heic_is_read_where_pillow_heif_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded(Image.new("RGB", (64, 48), (200, 0, 0)), "HEIF")
    assert decode(data).size == measure(data) == (64, 48)
    assert cause_of(data[:200]).startswith("corrupt image")


@pytest.mark.parametrize("data", [EPS, BINARY_EPS, b"\n" + EPS])
def test_no_program_is_started(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # so that Pillow looks for the program again
    cause_of(data)
    assert not (tmp_path / "started").exists()
    assert not {"EPS", "WMF", "PDF", "FPX"} & set(vlm.pictures.formats())


def with_exif(orientation: object, *entries: bytes) -> bytes:
    """A JPEG of 6 x 2 with an EXIF block, little-endian, of an orientation and of raw entries of 12 bytes each."""
    own = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    ifd = struct.pack("<H", 1 + len(entries)) + own + b"".join(entries) + struct.pack("<I", 0)
    tail = struct.pack("<ii", -72, 1)  # lies at offset 8 + len(ifd)
    block = b"Exif\0\0II*\0\x08\0\0\0" + ifd + tail
    plain = encoded(Image.new("RGB", (6, 2)), "jpeg")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def test_a_picture_is_turned_whatever_its_other_tags_are() -> None:
    resolution = struct.pack("<HHII", 0x011A, 10, 1, 8 + 2 + 24 + 4)  # a rational of -72
    data = with_exif(6, resolution)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))  # so orientation is not read by this function
    assert decode(data).size == measure(data) == (2, 6)


@pytest.mark.parametrize("block", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"\xff" * 60])
def test_a_picture_with_broken_exif_is_not_turned(block: bytes) -> None:
    plain = encoded(Image.new("RGB", (6, 2)), "jpeg")
    exif = b"Exif\0\0" + block
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert decode(data).size == measure(data) == (6, 2)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    assert decode(with_exif(orientation)).size == (6, 2)


def with_chunk(data: bytes, name: bytes, content: bytes, broken: bool = False) -> bytes:
    """A PNG with one more chunk after its header."""
    checksum = zlib.crc32(name + content) ^ broken
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    return data[:33] + chunk + data[33:]


def test_no_metadata_of_a_png_fails_its_picture() -> None:
    plain = encoded(noise(30, 20), "png")
    large = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))
    for data in (
        with_chunk(plain, b"iCCP", b"profile\0\0" + large),
        with_chunk(plain, b"zTXt", b"text\0\0" + large),
        with_chunk(plain, b"iTXt", b"text\0\1\0\0\0" + large),
        with_chunk(plain, b"iCCP", b"profile\0\0not compressed"),
        with_chunk(plain, b"tEXt", b"text\0x", broken=True),
    ):
        assert decode(data).tobytes() == decode(plain).tobytes()
        assert measure(data) == (30, 20)


def test_what_changes_the_pixels_of_a_png_is_kept() -> None:
    palette = encoded(noise(30, 20).quantize(16), "png", transparency=3)
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = encoded(noise(30, 20), "png", exif=exif)
    for plain in (palette, turned):
        data = with_chunk(plain, b"tEXt", b"text\0x", broken=True)
        assert decode(data).tobytes() == decode(plain).tobytes()
        assert decode(data).size == decode(plain).size
    assert without_metadata(encoded(noise(3, 2), "png")) is None
    assert without_metadata(encoded(noise(3, 2), "jpeg")) is None


def test_a_picture_without_pixels_is_corrupt() -> None:
    bmp = bytearray(encoded(Image.new("RGB", (3, 2)), "bmp"))
    bmp[18:22] = bytes(4)  # the width
    for data in (bytes(bmp), b"P6 0 3 255\n", encoded(Image.new("L", (3, 2)), "tiff")[:8] + bytes(40)):
        assert cause_of(data).partition(":")[0] in ("corrupt image", "not an image")


def test_memory_is_a_picture_s_failure_only_while_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(30, 20), "png")

    def fails(image: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(vlm.pictures, "_on_white", fails)
    assert cause_of(data).startswith("out of memory")
    monkeypatch.setattr(vlm.pictures, "_ORDINARY", 1 << 60)
    with pytest.raises(MemoryError):
        decode(data)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(AS_USERS_HAVE_THEM)), st.data())
def test_whatever_the_bytes_are_both_stages_say_the_same(name: str, draw: st.DataObject) -> None:
    data = bytearray(AS_USERS_HAVE_THEM[name])
    for _ in range(draw.draw(st.integers(0, 4)) if data else 0):
        data[draw.draw(st.integers(0, min(len(data) - 1, 600)))] = draw.draw(st.integers(0, 255))
    outcomes = []
    for function in (measure, lambda given: decode(given).size):
        try:
            outcomes.append(function(bytes(data)))
        except DecodeError as error:
            outcomes.append(error.cause)
    assert outcomes[0] == outcomes[1]


def test_a_psd_is_read_with_its_layers_joined() -> None:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 5, 8, 3)
    planes = b"".join(bytes([value]) * 20 for value in (10, 20, 30))
    image = decode(header + bytes(12) + bytes(2) + planes)
    assert (image.size, image.getpixel((0, 0))) == ((5, 4), (10, 20, 30))
