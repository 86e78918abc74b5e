"""Images and captions that the explorer shows, and their thumbnails: one file per image, shared by all concepts."""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zipfile import ZipFile

import duckdb

from report.explorer.answers import rows_of
from report.explorer.concepts import SMALL
from report.pictures import webp
from report.queries import holds
from storage.site import put, put_json
from storage.statements import statement

BLOCK = 64  # images per file, each with its captions
SIDE, QUALITY = 160, 70  # longest side of a thumbnail in pixels, and WebP's quality: about 4 kB each


def find_shown(con: duckdb.DuckDBPyConnection) -> None:
    """Fill the table shown_images: the images that the explorer shows. Reads the table explorer_top."""
    select = statement("explorer/shown_images", small=SMALL, block=BLOCK)
    con.execute(f"CREATE OR REPLACE TEMP TABLE shown_images AS {select}")


def write_thumbnails(site: ZipFile, con: duckdb.DuckDBPyConnection) -> set[int]:
    """Write `thumbs/<image_id>.webp` for the images shown whose bytes are stored and valid. Returns their ids."""
    if not holds(con, "image_bytes"):
        return set()
    written: set[int] = set()
    answer = con.execute(statement("explorer/pictures"))
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="thumbnail") as pool:
        while rows := answer.fetchmany(256):  # in batches: all images in their original size may not fit in memory
            encoded = pool.map(lambda row: webp(row[1], SIDE, QUALITY), rows)
            for (image_id, _), data in zip(rows, encoded, strict=True):
                if data is not None:
                    put(site, f"thumbs/{image_id}.webp", data)
                    written.add(image_id)
    return written


def write_items(site: ZipFile, con: duckdb.DuckDBPyConnection, thumbs: set[int]) -> None:
    """Write the images and captions shown to `data/items/<n>.json`, with `index.json` and `search.json` beside them.

    index.json maps each item to the number n of its file. search.json lists all captions.

    thumbs: ids of the images with a thumbnail.
    """
    blocks: dict[int, dict[str, Any]] = defaultdict(lambda: {"images": {}, "texts": {}})
    index: dict[str, dict[str, int]] = {"images": {}, "texts": {}}
    for row in rows_of(con, "images").iter_rows(named=True):
        i, block = row.pop("image_id"), row.pop("block")
        index["images"][str(i)] = block
        blocks[block]["images"][str(i)] = {**row, "thumb": f"thumbs/{i}.webp" if i in thumbs else None}
    captions = rows_of(con, "captions")
    for row in captions.iter_rows(named=True):
        i, block = row.pop("pair_id"), row.pop("block")
        index["texts"][str(i)] = block
        blocks[block]["texts"][str(i)] = row
    for block, both in blocks.items():
        put_json(site, f"data/items/{block}.json", both)
    put_json(site, "data/items/index.json", index)
    searched = captions.select(id="pair_id", caption="caption").to_dict(as_series=False)
    put_json(site, "data/items/search.json", searched)
