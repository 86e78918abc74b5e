"""Images and captions that the explorer shows, and their thumbnails: one file an image, shared by all concepts."""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb

from report.explorer.files import rows_of, write_json
from report.pictures import webp
from report.queries import holds
from storage.statements import statement

SMALL = 5000  # images up to which all are shown, and not only those in a top list
BLOCK = 64  # images a file, each with its captions
SIDE, QUALITY = 160, 70  # longest side of a thumbnail in pixels, and WebP's quality: about 4 kB each


def find_shown(con: duckdb.DuckDBPyConnection) -> None:
    """Fill the table shown_images. Needs explorer_top."""
    select = statement("explorer/shown_images", small=SMALL, block=BLOCK)
    con.execute(f"CREATE OR REPLACE TEMP TABLE shown_images AS {select}")


def write_thumbnails(out: Path, con: duckdb.DuckDBPyConnection) -> set[int]:
    """Write `out/<image_id>.webp` of every image shown whose bytes the store holds. Returns the ids of those written."""
    if not holds(con, "image_bytes"):
        return set()
    out.mkdir(parents=True, exist_ok=True)

    def write(row: tuple[int, bytes]) -> int | None:
        made = webp(row[1], SIDE, QUALITY)
        if made is None:
            return None
        (out / f"{row[0]}.webp").write_bytes(made)
        return row[0]

    written: set[int] = set()
    cursor = con.execute(statement("explorer/pictures"))
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="thumbnail") as pool:
        while rows := cursor.fetchmany(256):  # the bytes are as the source gave them: some at a time
            written.update(i for i in pool.map(write, rows) if i is not None)
    return written


def write_items(out: Path, con: duckdb.DuckDBPyConnection, thumbs: set[int]) -> None:
    """Write `out/<n>.json`, `out/index.json` and `out/search.json`."""
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
    for block, found in blocks.items():
        write_json(out / f"{block}.json", found)
    write_json(out / "index.json", index)
    write_json(out / "search.json", {"id": captions["pair_id"].to_list(), "caption": captions["caption"].to_list()})
