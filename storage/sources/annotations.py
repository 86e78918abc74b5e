"""Tables in JSON (one object per line, an array of objects, Karpathy's files), and the .token files of Flickr."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import BadInput
from storage.sources.captions import shown
from storage.sources.delimited import HEAD, Data, Form, Parsed, count_lines, parse

if TYPE_CHECKING:  # pyarrow takes a fifth of a second to import
    import pyarrow as pa

NO_OBJECT = "no JSON object"
PIECE = 4 << 20  # bytes in which the beginnings of lines are searched at once
BLOCK = 16 << 20  # bytes that pyarrow parses at once; a longer line is parsed by Python
_TOKEN = re.compile(rb"[^\t\r\n]+#\d+\t")  # IMAGE.jpg#0, a tab, the caption
_BLANK = re.compile(r"\s*")
_ARRAY = re.compile(r"\s*\[\s*\{")  # of objects
DEEP = (b"[" * 64, b"]" * 64, b"}" * 64)  # signs of values in values
KNOWN = (
    "known are an array of objects with an image and a caption ([{...}, ...]), and Karpathy's files "
    '({"images": [{"filename": ..., "sentences": [{"raw": ...}]}]})'
)


def parse_lines(data: Data) -> Parsed:
    """Return the content of a file with one JSON object per line. Only objects are kept; values keep their kinds.

    `data` is what `delimited.content` returned. Pyarrow parses the lines if each column holds values of one kind.
    """
    table = _of_one_kind(data)
    if table is None:
        return _line_by_line(data[:].decode(errors="replace"))
    import polars as pl

    exact = table.num_rows == count_lines(data, 0)
    columns = {name: pl.Series(pl.from_arrow(table.column(name))) for name in table.column_names}
    return Parsed(columns, table.num_rows, "line" if exact else "row", range(1, table.num_rows + 1), [])


def parse_document(path: Path, data: Data) -> Parsed:
    """Return the table in a JSON document, or in one JSON object per line. Raises BadInput for another document."""
    text = data[:].decode(errors="replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = None if _ARRAY.match(text) else _line_by_line(text)
        if lines and lines.rows > 1 and lines.rows > len(lines.left_out):
            return lines
        raise BadInput(f"{path}: cannot be read as JSON: {error}") from None
    if isinstance(value, dict):
        value = _karpathy(path, value)
    if not isinstance(value, list) or (value and not any(isinstance(one, dict) for one in value)):
        seen = f"an array of {shown(value[0])}, ..." if isinstance(value, list) else shown(value)
        raise BadInput(f"{path}: no table of captions: it is {seen}; {KNOWN}")
    return _table_of(value, "entry", range(1, len(value) + 1))


def is_token(data: Data) -> bool:
    """Whether a text is laid out like Flickr8k.token.txt and results_20130124.token: IMAGE.jpg#0, a tab, a caption."""
    return bool(_TOKEN.match(data[:HEAD]))


def parse_token(data: Data, path: Path) -> Parsed | None:
    """Return the content of Flickr's .token files: the columns file_name and caption. None for an empty file."""
    parsed = parse(data, Form(header=False, quoting="none"), "\t", path)
    if parsed is None:
        return None
    first, second = (parsed.columns.get(name, [None] * parsed.rows) for name in ("1", "2"))
    names = [None if name is None else re.sub(r"#\d+$", "", name) for name in first]
    return parsed._replace(columns={"file_name": names, "caption": second})


def looks_like_captions(head: bytes) -> bool:
    """Whether the beginning of a JSON document is that of an array of objects or of one of Karpathy's files."""
    head = head.lstrip()
    return bool(re.match(rb"\[\s*\{", head)) or (head.startswith(b"{") and b'"sentences"' in head)


def _of_one_kind(data: Data) -> pa.Table | None:
    """Parse JSON lines by pyarrow. None for a fault, and for columns with values of several kinds."""
    import pyarrow as pa
    from pyarrow import json as pa_json

    if not _all_begin_objects(data) or any(data.find(signs) >= 0 for signs in DEEP):
        return None  # pyarrow ends the process at a block that begins with null, and at values in too many values
    options = pa_json.ReadOptions(block_size=BLOCK)
    try:
        table = pa_json.read_json(pa.BufferReader(data), options)
        dates = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
        if dates:  # pyarrow takes texts that look like dates for dates
            texts = pa.schema([(name, pa.string()) for name in dates])
            table = pa_json.read_json(pa.BufferReader(data), options, pa_json.ParseOptions(explicit_schema=texts))
        table.validate(full=True)  # texts are UTF-8; no array is broken, as pyarrow's lists of nulls are
    except pa.ArrowException:
        return None
    return None if any(_holds_dates(field.type) for field in table.schema) or not table.num_columns else table


def _holds_dates(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_temporal(kind) or any(_holds_dates(kind.field(n).type) for n in range(kind.num_fields))


def _all_begin_objects(data: Data) -> bool:
    """Whether each line is empty or begins with "{"."""
    import numpy as np

    if data[:1] not in (b"{", b"\n"):
        return False
    signs = np.frombuffer(data, np.uint8)

    def begin(start: int) -> bool:
        ends = start + np.flatnonzero(signs[start : min(start + PIECE, len(signs) - 1)] == ord("\n"))
        begun = signs[ends + 1]
        return bool(((begun == ord("{")) | (begun == ord("\n"))).all())

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy holds no lock while it searches
        return all(pool.map(begin, range(0, len(signs) - 1, PIECE)))


def _line_by_line(text: str) -> Parsed:
    """Parse JSON objects by Python. After a fault, the next line is the next object. An object may end in a comma."""
    decoder = json.JSONDecoder()
    objects: list[dict[str, Any]] = []
    numbers: list[int] = []
    left_out: list[tuple[int, str, str]] = []
    at, number, counted = 0, 1, 0
    while (at := _skip_blanks(text, at)) < len(text):
        number += text.count("\n", counted, at)
        counted = at
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            value = text[at:end]
        if isinstance(value, dict):
            objects.append(value)
            numbers.append(number)
            comma = _skip_blanks(text, end)
            end = comma + 1 if text[comma : comma + 1] == "," else end
        else:
            left_out.append((number, NO_OBJECT, shown(value)))
        at = end
    parsed = _table_of(objects, "line", numbers)
    return parsed._replace(left_out=left_out)


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _table_of(entries: Sequence[Any], unit: str, numbers: Sequence[int]) -> Parsed:
    """Return the table of objects, a column for each key. Entries that are no objects are left out."""
    numbered = list(zip(numbers, entries, strict=True))
    kept = [(number, one) for number, one in numbered if isinstance(one, dict)]
    left_out = [(number, NO_OBJECT, shown(one)) for number, one in numbered if not isinstance(one, dict)]
    names = dict.fromkeys(key for _, one in kept for key in one)
    columns = {name: [one.get(name) for _, one in kept] for name in names}
    return Parsed(columns, len(kept), unit, [number for number, _ in kept], left_out)


def _karpathy(path: Path, value: dict[str, Any]) -> list[Any]:
    """Return the images of one of Karpathy's files (dataset_coco.json, ...) as rows with file_name and caption.

    Raises BadInput for another object.
    """
    images = value.get("images")
    if isinstance(images, list) and isinstance(value.get("annotations"), list):
        raise BadInput(f'{path}: COCO\'s layout (images and annotations): set pairs.source = "coco"')
    if not isinstance(images, list) or not any(isinstance(one, dict) and "sentences" in one for one in images):
        keys = ", ".join(shown(key)[4:] for key in list(value)[:10])
        raise BadInput(f"{path}: no table of captions: it is an object with the keys {keys}; {KNOWN}")
    return [_row_of_karpathy(one) if isinstance(one, dict) else one for one in images]


def _row_of_karpathy(image: dict[str, Any]) -> dict[str, Any]:
    folder, name = image.get("filepath"), image.get("filename")
    placed = f"{folder}/{name}" if isinstance(folder, str) and folder and isinstance(name, str) else name
    rest = {key: value for key, value in image.items() if key not in ("sentences", "file_name", "caption")}
    return {"file_name": placed, "caption": image.get("sentences"), **rest}
