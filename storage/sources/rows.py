"""The rows of a table of pairs: keys of the study file that say how to read them, and what the rows of an item hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from storage.errors import BadInput
from storage.sources import Dropped
from storage.sources.captions import Texts, shown, texts_of
from storage.sources.delimited import Form, Quoting
from storage.sources.labels import NO_GROUP, NO_LABEL, SEVERAL_GROUPS, group_after, group_of, label_texts
from storage.sources.section import Columns, FilesSection
from storage.sources.tables import Table, column

SPLIT = "split"  # the column by which `pairs.splits` chooses rows


def _sign(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value.isalnum() or value in '"\r\n':
        raise ValueError("a separator is one ASCII character other than a letter, a digit or a double quote")
    return value


#: Type of a key that names a column, by its name or by its number in a file without a header line.
ColumnName = Annotated[str, BeforeValidator(lambda value: f"{value}" if type(value) is int else value)]
Separator = Annotated[str, BeforeValidator(lambda value: "\t" if value == "\\t" else value), AfterValidator(_sign)]


class TableSection(FilesSection):
    """The keys that every source with a table has."""

    header: bool = Field(
        True,
        description="whether the first line of a CSV or TSV file names the columns; if false, the other keys name a "
        'column by its number, "1" for the first',
    )
    separator: Separator | None = Field(
        None,
        description='character between the fields of a CSV or TSV file, such as "|"; default: tab for .tsv; comma for '
        ".csv, or one of ; | and tab if the first line has no comma",
    )
    quoting: Quoting | None = Field(
        None,
        description="csv: fields may stand in double quotes; none: a quote is text; default: csv, and for tables with "
        "tabs none, unless their quotes are valid only as CSV",
    )
    labels: Columns = Field([], description="columns of the table that label images: texts, lists of texts, numbers")
    splits: Columns = Field([], description="take only rows whose column `split` holds one of these; default: all rows")

    def form(self) -> Form:
        """How the section says that a table is written."""
        return Form(self.header, self.separator, self.quoting)


class Rows(NamedTuple):
    """What the rows of one item hold."""

    group: str
    texts: Texts
    labels: dict[tuple[str, str], None]  #: (column, label), each once


class Row(NamedTuple):
    """The values of one row of a table."""

    number: int  #: from 0, through all files of the table
    key: Any  #: value of the column of images or URLs
    caption: Any
    group: Any
    labels: Sequence[Any]


class Columned(NamedTuple):
    """The columns of a table that a source reads, by their name in each file."""

    key: Sequence[str | None]  #: the column of images or URLs
    caption: Sequence[str | None]
    group: Sequence[str | None] | None
    labels: Sequence[str]
    splits: Sequence[str]  #: values of the column `split`; none: all rows


def rows_of(table: Table, columns: Columned, where: Path) -> Iterator[Row]:
    """Yield each row that is in one of the splits.

    Raises BadInput for a table without rows, for a column of labels that does not exist, and for splits of which the
    table has no row.
    """
    if not table.height:
        raise BadInput(f"{where}: the table has no rows, so it holds no image-text pairs, and nothing was left out")
    named = [table.values(column(table, name, (), "labels", everywhere=False)) for name in columns.labels]
    labels = zip(*named, strict=True) if named else [()] * table.height
    groups = table.values(columns.group) if columns.group else [None] * table.height
    chosen: Sequence[bool] = [True] * table.height
    if columns.splits:
        splits = table.values(column(table, SPLIT, (), "splits"))
        chosen = [split in columns.splits for split in splits]
        if not any(chosen):
            held = ", ".join(dict.fromkeys(split for split in splits if isinstance(split, str)))
            raise BadInput(f"{where}: pairs.splits = {list(columns.splits)}: its column {SPLIT} holds {held}")
    keys, captions = table.values(columns.key), table.values(columns.caption)
    for row, (take, *values) in enumerate(zip(chosen, keys, captions, groups, labels, strict=True)):
        if take:
            yield Row(row, *values)


def add_row(rows: dict[str, Rows], key: str, row: Row, names: Sequence[str]) -> list[Dropped]:
    """Add a row to the rows of the item `key`. `names` are the columns of its labels.

    Returns what the ledger lists of its group and its labels.
    """
    held, of = rows.get(key), group_of(row.group)
    if of is None:
        return [Dropped(key, NO_GROUP, shown(row.group))]
    held = held or Rows("", Texts([], []), {})
    group, other = group_after(held.group, of)
    held = rows[key] = held._replace(group=group)
    found = texts_of(row.caption)
    held.texts.texts.extend(found.texts)
    held.texts.left_out.extend(found.left_out)
    dropped = [Dropped(key, SEVERAL_GROUPS, other)] if other else []
    for name, value in zip(names, row.labels, strict=True):
        for label, wrong in label_texts(value):
            if wrong:
                dropped.append(Dropped(key, NO_LABEL, f"{name}: {wrong}"))
            else:
                held.labels[name, label] = None
    return dropped
