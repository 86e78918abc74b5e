"""Pictures as small data URIs. Decodes and shrinks what the catalog holds; never writes a file, never fetches one."""

from __future__ import annotations

import base64
import io

import duckdb
from PIL import Image, ImageOps

from report.queries import Answer, pictures

SIDE, QUALITY = 96, 72  # pixels of the longer side: sharp at 48 on a dense screen, about 2 kB each


def thumbnail(encoded: bytes) -> str | None:
    """A picture as a WebP data URI of at most 96 x 96 pixels, on white; None when it cannot be decoded."""
    made = webp(encoded, SIDE, QUALITY)
    return None if made is None else "data:image/webp;base64," + base64.b64encode(made).decode()


def webp(encoded: bytes, side: int, quality: int) -> bytes | None:
    """A picture as WebP, its longer side at most `side` pixels, without metadata; None when it cannot be decoded.

    Transparent pictures are laid on white, as the models saw them, and turned as their EXIF block says.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            picture.draft("RGB", (side * 2, side * 2))  # a large JPEG is decoded at a fraction of its size
            layer = ImageOps.exif_transpose(picture).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    layer.thumbnail((side, side), Image.Resampling.LANCZOS)
    flat = Image.new("RGB", layer.size, "white")
    flat.paste(layer, mask=layer.getchannel("A"))
    out = io.BytesIO()
    flat.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def thumbnails(con: duckdb.DuckDBPyConnection, images: list[int]) -> tuple[Answer, dict[int, str]]:
    """Thumbnails of these images by id, those without a picture left out, and the statement that read them."""
    sql = pictures(images)
    found: dict[int, str] = {}
    # row by row, each shrunk before the next is taken: the bytes are as the source gave them
    cursor = con.execute(sql)
    while (row := cursor.fetchone()) is not None:
        if (uri := thumbnail(row[1])) is not None:
            found[row[0]] = uri
    return Answer(sql, ["image_id", "image"], []), found
