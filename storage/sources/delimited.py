"""Tables of delimited text (CSV, TSV). A fault of a line costs at most this line, which is counted with its number.

Polars parses a table that has no fault. Any other table is parsed line by line, by rules that keep a stray quote as
text. The two parsers agree on tables without a fault.
"""

from __future__ import annotations

import codecs
import logging
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from storage.errors import BadInput
from storage.sources.captions import shown
from storage.sources.files import is_picture
from storage.sources.section import is_url

if TYPE_CHECKING:  # numpy and polars take a fifth of a second to import
    import numpy as np
    import polars as pl

TOO_MANY_FIELDS = "line has more fields than columns"
HEAD = 1 << 20  # bytes in which the first line must end
UNKNOWN = "\ufffd".encode()
BLOCK = 4 << 20  # bytes that one thread searches at once
MARKS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
log = logging.getLogger("bridgescope")
_IDENTIFIER = re.compile(r"""[^\s"]*\d[^\s"]*""")
Quoting = Literal["csv", "none"]
Data = bytes | mmap.mmap  # a file that is parsed as it is stays where it is
Record = tuple[int, list[str | None], int]  # number of the first line, fields, place behind the last line


class Form(NamedTuple):
    """How a table of delimited text is written."""

    header: bool = True  #: whether the first line names the columns; else their names are "1", "2", ...
    separator: str | None = None  #: one ASCII character; None: by the file's extension and its first line
    #: "csv": fields may stand in double quotes; "none": a quote is text; None: "csv", and for tabs "none", unless the
    #: quotes in the file make sense only as CSV's
    quoting: Quoting | None = None


class Parsed(NamedTuple):
    """The content of a file with a table."""

    columns: Mapping[str, Sequence[Any] | pl.Series]  #: values of each column
    rows: int
    unit: str  #: what `numbers` count: "line", "row" or "entry"
    numbers: Sequence[int]  #: the number of each row in the file, from 1
    left_out: list[tuple[int, str, str]]  #: (number, cause, detail) of each row that cannot be read


class Body(NamedTuple):
    """The lines of a table behind its header line."""

    data: Data  #: with the lines before the body
    path: Path | None  #: the file that holds `data`, if polars may read it
    start: int  #: bytes before the body
    skipped: int  #: lines before the body, also those of the file that `data` lacks


def content(path: Path) -> Data:
    """Return the content of a file as `utf8` would; a mapping of the file where `utf8` changes nothing.

    Raises OSError.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # the file is empty, or no regular one
            return utf8(file.read())
    head = data[:HEAD]
    marked = head.startswith((codecs.BOM_UTF8, *(mark for mark, _ in MARKS)))
    return utf8(data[:]) if marked or _ends_blank(data) or (b"\r" in head and data.find(b"\n") < 0) else data


def utf8(data: bytes) -> bytes:
    """Return a text's bytes in UTF-8 without a byte order mark, with lines that end in "\\n" or "\\r\\n".

    UTF-16 is recognised by its byte order mark. Bytes that are not UTF-8 are kept. Blank lines at the end are left out.
    """
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    for mark, encoding in MARKS:
        if data.startswith(mark):
            data = data[len(mark) :].decode(encoding, "replace").encode()
    data = data.replace(b"\r", b"\n") if b"\r" in data[:HEAD] and b"\n" not in data else data
    return data.rstrip(b"\r\n") if _ends_blank(data) else data


def lossy(data: Data) -> bytes:
    """Return the bytes with U+FFFD in place of what is not UTF-8."""
    return data[:].decode(errors="replace").encode()


def parse(data: Data, form: Form, separator: str, path: Path | None = None) -> Parsed | None:
    """Return the content of a table of delimited text, with columns of texts. None for a file without any line.

    `data` is what `utf8` or `content` returned, of the file `path`. An empty field without quotes is None. Short lines
    are filled with None; lines with more fields than columns are left out. Raises BadInput for a first line that is
    longer than HEAD.
    """
    head = data[:HEAD]
    blank = len(head) - len(head.lstrip(b"\r\n"))
    text = head[blank:].decode(errors="replace")
    if not text:
        return None
    if len(data) > HEAD and b"\n" not in head[blank:]:
        raise BadInput(
            f"{path}: its first line is longer than {HEAD:,} bytes: the first line names the columns, or is a row "
            "(pairs.header = false); write each row on a line of its own"
        )
    quoting = form.quoting or (_quoting_of_tabs(data, text, form.header) if separator == "\t" else "csv")
    quoted = quoting == "csv"
    _, first, end = next(_records(text, separator, quoted, None))
    names = _unique(first) if form.header else [f"{number}" for number in range(1, len(first) + 1)]
    skipped = head.count(b"\n", 0, blank)
    start = blank
    if form.header:
        lines = text.count("\n", 0, end)
        start = _behind(data, skipped + lines)
        skipped += lines
    body = Body(data, path if isinstance(data, mmap.mmap) else None, start, skipped)
    read = _strict(body, separator, quoted, names)
    if read is None and (valid := lossy(data)) != data[:]:
        wrong = valid.count(UNKNOWN) - data[:].count(UNKNOWN)
        log.warning("%s: %d places are not UTF-8 and are read as U+FFFD: save it as UTF-8", path or "a table", wrong)
        body = Body(valid, None, _behind(valid, skipped) if form.header else blank, skipped)
        read = _strict(body, separator, quoted, names)
    if read is None:
        return _tolerant(body.data[body.start :].decode(errors="replace"), separator, quoted, names, skipped)
    frame, exact = read
    numbers = range(skipped + 1, skipped + 1 + frame.height) if exact else range(1, frame.height + 1)
    return Parsed({name: frame[name] for name in names}, frame.height, "line" if exact else "row", numbers, [])


def separator_of(data: Data, usual: str) -> str:
    """Return the separator in the first line of a table: `usual` if it occurs there, else the most frequent one."""
    line = data[:HEAD].lstrip(b"\r\n").partition(b"\n")[0].decode(errors="replace")
    return usual if usual in line else max(";|\t,", key=lambda sign: (line.count(sign), sign == usual))


def names_a_picture(field: str) -> bool:
    """Whether a field holds the URL or the file name of a picture, perhaps in quotes."""
    field = field.strip(' \r"')
    return is_url(field) or is_picture(field)


def _ends_blank(data: Data) -> bool:
    return data[-2:] == b"\n\n" or data[-3:] == b"\n\r\n"


def _behind(data: Data, lines: int) -> int:
    """Return the place behind the first `lines` line ends. For none, the data is one line, and its end is returned."""
    place = 0
    for _ in range(lines):
        place = data.find(b"\n", place) + 1
    return place or len(data)


def _unique(fields: Sequence[str | None]) -> list[str]:
    """Return the names of the columns from the fields of the first line. The name of a second column gets a suffix."""
    names: list[str] = []
    repeats: dict[str, int] = {}
    for field in fields:
        name = unique = (field or "").strip()
        while unique in names:
            unique = f"{name}_duplicated_{repeats.setdefault(name, 0)}"
            repeats[name] += 1
        names.append(unique)
    return names


def count_lines(data: Data, start: int) -> int:
    """Return the number of lines behind the byte `start`."""
    return _scan(data, start, quotes=False)[0]


def _scan(data: Data, start: int, quotes: bool) -> tuple[int, np.ndarray]:
    """Return the number of lines behind the byte `start`, and the places of their quotes, block by block."""
    import numpy as np

    signs = np.frombuffer(data, np.uint8)

    def search(first: int) -> tuple[int, np.ndarray]:
        block = signs[first : min(first + BLOCK, len(signs))]
        ends = int(np.count_nonzero(block == ord("\n")))
        return ends, first + np.flatnonzero(block == ord('"')) if quotes else np.empty(0, np.int64)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy holds no lock while it searches
        found = list(pool.map(search, range(start, len(signs), BLOCK)))
    last = start < len(signs) and data[-1:] != b"\n"
    places = np.concatenate([np.empty(0, np.int64), *(places for _, places in found)])
    return sum(ends for ends, _ in found) + last, places


def _strict(body: Body, separator: str, quoted: bool, names: Sequence[str]) -> tuple[pl.DataFrame, bool] | None:
    """Parse lines without a fault by polars. None for lines that have a fault, or that polars reads in another way.

    Returns the rows, and whether each is a line.
    """
    import polars as pl

    schema = dict.fromkeys(names, pl.String)
    if body.start >= len(body.data):
        return pl.DataFrame(schema=schema), True

    def searched() -> tuple[int, np.ndarray | None]:
        lines, quotes = _scan(body.data, body.start, quoted)
        return lines, _spans(body.data, quotes, separator, body.start)

    with ThreadPoolExecutor(1) as beside:  # polars leaves the cores idle for a part of its time
        search = beside.submit(searched)
        try:
            frame = pl.read_csv(
                body.path or body.data[body.start :],
                has_header=False,
                skip_lines=body.skipped if body.path else 0,
                schema=schema,
                separator=separator,
                quote_char='"' if quoted else None,
                infer_schema=False,
                glob=False,
            )
        except pl.exceptions.PolarsError:
            return None
        lines, spans = search.result()
    if spans is None:
        return None
    if frame.height == lines:
        return frame, True
    inside, broken = _broken(body.data, spans)
    if any(_rows_of_their_own(one, separator, len(names)) for one in _records_at(body.data, broken)):
        return None
    return (frame, False) if frame.height + inside == lines else None


def _spans(data: Data, places: np.ndarray, separator: str, start: int = 0) -> np.ndarray | None:
    """Return the places of the opening and the closing quote of each quoted field, shape (quotes / 2, 2).

    `places` are those of the quotes behind the byte `start`, where a line begins. A field with n doubled quotes has
    n + 1 spans. None if a quote does not stand at the beginning or the end of a field and is not doubled either.
    """
    import numpy as np

    if len(places) % 2:
        return None
    signs = np.frombuffer(data, np.uint8)
    opening, closing = places[::2], places[1::2]
    doubled = closing[:-1] + 1 == opening[1:]
    before, after = signs.take(opening - 1, mode="clip"), signs.take(closing + 1, mode="clip")
    begins = (opening == start) | (before == ord(separator)) | (before == ord("\n"))
    ends = (after == ord(separator)) | (after == ord("\n"))
    if len(closing):
        ends[-1] |= closing[-1] + 1 == len(signs)
    begins[1:] |= doubled
    ends[:-1] |= doubled
    rest = np.flatnonzero(~ends)
    behind = signs.take(closing[rest] + 2, mode="clip")
    ends[rest] = (after[rest] == ord("\r")) & ((behind == ord("\n")) | (closing[rest] + 2 == len(signs)))
    return places.reshape(-1, 2) if begins.all() and ends.all() else None


def _broken(data: Data, spans: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of line ends in quotes, and the places of the fields that hold them."""
    import numpy as np

    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    apart = spans[:-1, 1] + 1 != spans[1:, 0]
    fields = np.column_stack(
        [spans[np.append(True, apart)[: len(spans)], 0], spans[np.append(apart, True)[: len(spans)], 1]]
    )
    inside = np.diff(np.searchsorted(ends, fields), axis=1)[:, 0]
    return int(inside.sum()), fields[inside > 0]


def _records_at(data: Data, spans: np.ndarray) -> Iterator[Iterator[str]]:
    """Yield the lines in which each span lies."""
    for opening, closing in spans.tolist():
        start = data.rfind(b"\n", 0, opening) + 1
        end = data.find(b"\n", closing)
        yield iter(data[start : len(data) if end < 0 else end].decode(errors="replace").split("\n"))


def _rows_of_their_own(lines: Iterator[str], separator: str, width: int | None) -> bool:
    """Whether the lines of a record look like rows that stray quotes joined.

    They do when the first line and a further one have a field for each column, and name a picture in the same column.
    Where the first line names none, identifiers take the place of names. Lines may have more fields, as the text behind
    a stray quote may hold separators: columns before the quote are counted from the left, others from the right.
    """
    first = _fields(next(lines), separator)
    if width is None or len(first) < width:
        return False
    opened = max((n for n, field in enumerate(first) if _opens(field)), default=width)
    columns = [*range(min(opened, width)), *range(-1, opened - width, -1)]
    is_name = names_a_picture
    if not (named := [place for place in columns if is_name(first[place])]):
        is_name = _is_identifier
        named = [place for place in columns if is_name(first[place])]
    if not named:
        return False
    others = (_fields(line, separator) for line in lines)
    return any(len(one) >= width and any(is_name(one[place]) for place in named) for one in others)


def _fields(line: str, separator: str) -> list[str]:
    """Return the fields of one line. A quoted field that does not end in this line is text."""
    if '"' not in line:
        return line.removesuffix("\r").split(separator)
    fields, _ = _with_quotes(line, 0, len(line), _quoted_field(separator), separator, None)
    return [field or "" for field in fields]


def _opens(field: str) -> bool:
    """Whether a field begins with a quote that is not doubled."""
    return (len(field) - len(field.lstrip('"'))) % 2 == 1


def _is_identifier(field: str) -> bool:
    """Whether a field looks like the name of a picture without its extension: one word with a digit."""
    return bool(_IDENTIFIER.fullmatch(field))


def _quoting_of_tabs(data: Data, head: str, header: bool) -> Quoting:
    """Return how a table with tabs is quoted. Such a table has no quoting, unless its quotes make sense only as CSV's.

    They do when each quote is one of a well-formed quoted field, and besides a column's name is quoted, or a quote in a
    field is doubled, or a field holds tabs or line ends that would give a line another number of fields than the first.
    """
    import numpy as np

    quote = data.find(b'"')
    if quote < 0 or data[max(quote - 1, 0) : quote] not in (b"", b"\t", b"\n"):
        return "none"
    spans = _spans(data, _scan(data, 0, quotes=True)[1], "\t")
    if spans is None:
        return "none"
    first = head.partition("\n")[0].split("\t")
    if header and any(name.startswith('"') for name in first):
        return "csv"
    width = len(first)
    _, broken = _broken(data, spans)
    if any(_rows_of_their_own(lines, "\t", width) for lines in _records_at(data, broken)):
        return "none"
    doubled = (spans[:-1, 1] + 1 == spans[1:, 0]).any()
    tabs = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\t"))
    holding = spans[np.diff(np.searchsorted(tabs, spans), axis=1)[:, 0] > 0]
    torn = any(_is_torn(lines, width) for lines in _records_at(data, broken))
    wide = any(line.count("\t") + 1 > width for lines in _records_at(data, holding) for line in lines)
    return "csv" if doubled or torn or wide else "none"


def _is_torn(lines: Iterator[str], width: int) -> bool:
    """Whether lines with tabs, which are no rows of their own, can only be the lines of one record."""
    fields = [line.split("\t") for line in lines]
    return any(len(one) != width for one in fields) or any(map(names_a_picture, fields[0]))


def _tolerant(text: str, separator: str, quoted: bool, names: Sequence[str], skipped: int) -> Parsed:
    """Parse any lines. `skipped` is the number of lines of the file before the text."""
    width = len(names)
    rows: list[list[str | None]] = []
    numbers: list[int] = []
    left_out: list[tuple[int, str, str]] = []
    for number, fields, _ in _records(text, separator, quoted, width):
        while len(fields) > width and fields[-1] is None:
            fields.pop()
        if len(fields) > width:
            told = f"{len(fields)} in place of {width}: {shown(separator.join(field or '' for field in fields))}"
            left_out.append((skipped + number, TOO_MANY_FIELDS, told))
            continue
        rows.append(fields + [None] * (width - len(fields)))
        numbers.append(skipped + number)
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    return Parsed(columns, len(rows), "line", numbers, left_out)


def _records(text: str, separator: str, quoted: bool, width: int | None) -> Iterator[Record]:
    """Yield the records of a text. A field is quoted if it is a well-formed quoted field; any other quote is text.

    `width` is the number of columns, by which rows that stray quotes seem to join are told from fields with line ends.
    """
    field = _quoted_field(separator)
    start, number = 0, 1
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if not quoted or text.find('"', start, end) < 0:
            fields = [one or None for one in text[start:end].removesuffix("\r").split(separator)]
        else:
            fields, end = _with_quotes(text, start, end, field, separator, width)
        yield number, fields, end + 1
        number += text.count("\n", start, end + 1)
        start = end + 1


def _quoted_field(separator: str) -> re.Pattern[str]:
    """Return the pattern of a well-formed quoted field."""
    return re.compile(rf'"([^"]*+(?:""[^"]*+)*+)"(?={re.escape(separator)}|\r?\n|\r?\Z)')


def _with_quotes(
    text: str, start: int, end: int, field: re.Pattern[str], separator: str, width: int | None
) -> tuple[list[str | None], int]:
    """Return the fields of the record at `start`, and the place where its last line ends. `end`: of its first line."""
    fields: list[str | None] = []
    at = start
    while True:
        match = field.match(text, at)
        last = end
        if match and match.end() > end:
            last = text.find("\n", match.end())
            last = len(text) if last < 0 else last
            if _rows_of_their_own(_split(text, text.rfind("\n", 0, at) + 1, last), separator, width):
                match, last = None, end
        if match:
            fields.append(match[1].replace('""', '"'))
            at, end = match.end(), last
        else:
            stop = text.find(separator, at, end)
            literal = text[at:end].removesuffix("\r") if stop < 0 else text[at:stop]
            fields.append(literal or None)
            at = end if stop < 0 else stop
        if at >= end or text[at] != separator:
            return fields, end
        at += 1


def _split(text: str, start: int, end: int) -> Iterator[str]:
    """Yield the lines of a part of a text."""
    while start <= end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        yield text[start:stop]
        start = stop + 1
