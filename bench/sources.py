"""Seconds in which tables of a million captions are read, relative to the plain reading by polars or pyarrow.

Plain reading is what the library does with the same file without a check. Both are measured in turn, in one process.
CSV and JSON lines have their bar against pyarrow. The ratio to polars is shown: polars joins rows by stray quotes and
turns values of several kinds into texts, and noticing that takes a search of the file that polars does not make.
`--work DIR` keeps the tables.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from pyarrow import csv as pa_csv
from pyarrow import json as pa_json

from bench.bars import Bar, at_most, finish, shown
from storage.sources.tables import read_table
from storage.sources.urls import Urls

ROWS = 1_000_000
ROUNDS = 5
MOST = 1.5  # the bar: seconds relative to those of plain reading
WORDS = ["a", "dog", "on", "the", "red", "grass", "café", "two", "people", "under", "an", "umbrella", "5", "犬", "in"]


def captions(count: int) -> Iterator[str]:
    """Captions of 4 to 14 words; some hold commas and quotes."""
    draw = random.Random(0)
    for _ in range(count):
        text = " ".join(draw.choices(WORDS, k=draw.randint(4, 14)))
        if draw.random() < 0.2:
            text += ", and more"
        yield f'{text} "{draw.choice(WORDS)}" here' if draw.random() < 0.02 else text


def lists(work: Path, count: int) -> dict[str, Path]:
    """Write the tables that are missing: {name: file}. Each has a column of URLs or file names, and captions."""
    files = {}
    for key in ("url", "file_name"):
        place = "https://example.org/pictures/" if key == "url" else "images/"
        rows = [(f"{place}{number:09d}.jpg", text) for number, text in enumerate(captions(count))]
        frame = pl.DataFrame(rows, schema=[key, "caption"], orient="row")
        for form in ("tsv", "csv", "jsonl", "parquet"):
            files[f"{form}, {key}"] = file = work / f"{key}-{count}.{form}"
            if file.exists():
                continue
            if form == "parquet":
                frame.write_parquet(file)
            elif form == "jsonl":
                lines = (json.dumps({key: name, "caption": text}, ensure_ascii=False) + "\n" for name, text in rows)
                file.write_text("".join(lines))
            elif form == "tsv":
                file.write_text(f"{key}\tcaption\n" + "".join(f"{name}\t{text}\n" for name, text in rows))
            else:
                with file.open("w", newline="") as opened:
                    csv.writer(opened).writerows([(key, "caption"), *rows])
    return files


def by_polars(file: Path) -> Any:
    """Read a table by polars without any check."""
    match file.suffix:
        case ".parquet":
            return pl.read_parquet(file)
        case ".jsonl":
            return pl.read_ndjson(file)
        case ".tsv":
            return pl.read_csv(file, separator="\t", quote_char=None, infer_schema=False)
        case _:
            return pl.read_csv(file, infer_schema=False)


def by_pyarrow(file: Path) -> Any:
    """Read CSV or JSON lines by pyarrow without any check."""
    return pa_json.read_json(file) if file.suffix == ".jsonl" else pa_csv.read_csv(file)


def seconds(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Seconds of two functions: the lowest of several rounds, in which they take turns."""
    taken: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for held, call in zip(taken, (one, other), strict=True):
            began = time.perf_counter()
            call()
            held.append(time.perf_counter() - began)
    return min(taken[0]), min(taken[1])


def measure(work: Path, count: int) -> list[Bar]:
    """Return the rows of the table."""
    rows: list[Bar] = []
    files = lists(work, count)
    for name, file in files.items():
        assert read_table(file)["caption"] == list(captions(count))
        own, theirs = seconds(partial(read_table, file), partial(by_polars, file))
        rows.append(shown(f"{name}: seconds of reading", own, "s"))
        told = f"{name}: seconds relative to plain reading by"
        if file.suffix in (".csv", ".jsonl"):
            rows.append(shown(f"{told} polars", own / theirs))
            own, theirs = seconds(partial(read_table, file), partial(by_pyarrow, file))
            rows.append(at_most(f"{told} pyarrow", own / theirs, MOST))
        else:
            rows.append(at_most(f"{told} polars", own / theirs, MOST))
    faulty = work / "faulty.csv"
    faulty.write_bytes(files["csv, url"].read_bytes() + b'https://example.org/last.jpg,a 5" screen\n')
    began = time.perf_counter()
    assert read_table(faulty).height == count + 1
    rows.append(
        shown("csv, url: seconds of reading with a stray quote in the last line", time.perf_counter() - began, "s")
    )
    began = time.perf_counter()
    listing = Urls(files["tsv, url"], work, identity={}).list()
    assert (len(listing.items), listing.dropped) == (count, [])
    rows.append(shown("tsv, url: seconds of listing the source", time.perf_counter() - began, "s"))
    return rows


def main() -> int:
    """Print the table; 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    return finish("sources", measure(given.work, given.rows))


if __name__ == "__main__":
    sys.exit(main())
