"""Pictures of the catalog, decoded and shrunk to small data URIs. No file is written and nothing is downloaded."""

from __future__ import annotations

import base64
import io

import duckdb
from PIL import Image

from report.queries import Answer, pictures
from vlm.pictures import open_raster, upright

SIDE, QUALITY = 96, 72  # longer side in pixels (sharp at 48 CSS pixels on a dense screen); WebP quality (about 2 kB)


def thumbnail(encoded: bytes) -> str | None:
    """A picture as a WebP data URI of at most 96 x 96 pixels, on white; None when it cannot be decoded."""
    shrunk = webp(encoded, SIDE, QUALITY)
    return None if shrunk is None else "data:image/webp;base64," + base64.b64encode(shrunk).decode()


def webp(encoded: bytes, side: int, quality: int) -> bytes | None:
    """A picture as WebP, its longer side at most `side` pixels, without metadata; None when it cannot be decoded.

    Transparent pictures are put on white, as pictures are before a model embeds them. The rotation in EXIF is applied.
    """
    try:
        with open_raster(encoded) as picture:
            picture.draft("RGB", (side * 2, side * 2))  # decodes a large JPEG at a fraction of its size
            picture.load()
            layer = upright(picture).convert("RGBA")
    except Exception:  # the decoders raise many kinds of errors; a page without one picture is better than no page
        return None
    layer.thumbnail((side, side), Image.Resampling.LANCZOS)
    flat = Image.new("RGB", layer.size, "white")
    flat.paste(layer, mask=layer.getchannel("A"))
    out = io.BytesIO()
    flat.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def thumbnails(con: duckdb.DuckDBPyConnection, images: list[int]) -> tuple[Answer, dict[int, str]]:
    """The statement that reads these images, and their thumbnails by id; images that cannot be decoded are left out."""
    sql = pictures(images)
    uris: dict[int, str] = {}
    # Each picture is shrunk before the next is read: at their original size, all of them may not fit in memory.
    cursor = con.execute(sql)
    while (row := cursor.fetchone()) is not None:
        if (uri := thumbnail(row[1])) is not None:
            uris[row[0]] = uri
    return Answer(sql, ["image_id", "image"], []), uris
