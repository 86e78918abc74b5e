"""Formats of files by their first bytes: those that people take for pictures and that may not be read, and PNG's parts.

Nothing here decodes a picture, and nothing here needs Pillow.
"""

from __future__ import annotations

import zlib

HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEAD = 4096  # bytes in which the root element of an SVG is looked for
#: (first bytes, name). Of the names, "HEIF" and "AVIF" are Pillow's; the others are formats that are never read.
SIGNATURES = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\xd0\xcf\x11\xe0", "FPX"),
    (b"AT&TFORM", "DjVu"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"SIMPLE  =", "FITS"),
    (b"\x8aMNG", "MNG"),
)
_PNG = b"\x89PNG\r\n\x1a\n"
#: Chunks besides those that every reader must know (their names begin with a capital) that change what is seen.
_SEEN = (b"tRNS", b"acTL", b"fcTL", b"fdAT")


def format_of(data: bytes) -> str | None:
    """The name of a format that may not be read, from the bytes of a file. None for all other bytes."""
    for start, name in SIGNATURES:
        if data.startswith(start):
            return name
    if data[4:8] == b"ftyp":
        return _boxed(data)
    if data.startswith(b"\x01\0\0\0") and data[40:44] == b" EMF":
        return "EMF"
    head = data[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(b"<svg") or (head.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in head):
        return "SVG"
    return None


def _boxed(data: bytes) -> str | None:
    """The format of a file of the ISO media family, by its brands."""
    size = min(int.from_bytes(data[:4], "big"), 1024)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, size, 4))}
    if brands & AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & HEIF_BRANDS else "video"


def without_metadata(data: bytes) -> bytes | None:
    """A PNG without the chunks that do not change its pixels (texts, colour profile, times). None if it has none.

    Pillow refuses a whole PNG for a colour profile or a text of more than 1 MiB, and for a wrong checksum of any chunk.
    A sound EXIF block is kept, since it may turn the picture.
    """
    if not data.startswith(_PNG):
        return None
    kept, at = [_PNG], len(_PNG)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + size
        chunk = data[at:end]
        sound = len(chunk) == 12 + size and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if not name[:1].islower() or name in _SEEN or (name == b"eXIf" and sound):
            kept.append(chunk)
        at = end
    bare = b"".join(kept)
    return bare if len(bare) < len(data) else None
