"""The results printed at the end of a run: the headline queries of `storage/sql/headlines/` as plain text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb

from storage.catalog import open_catalog
from storage.runs import Run
from storage.statements import statement

Row = dict[str, Any]
Setting = tuple[str | None, str | None]  # model, SAE setting

NAMES = 36  # columns for names of models and settings, unless one is longer
#: columns of the headline queries `saes` and `stability` that `diff` compares between two runs
SAES = ("r2_image", "r2_text", "l0", "dead", "unimodal")
STABILITY = ("stability", "floor_random", "floor_matched")


def results(store: Path, run: Run) -> str:
    """The headline results of a run as lines of text: retrieval, SAEs, stability."""
    with open_catalog(store, run=run) as con:
        return summary(con, _settings(run))


def summary(con: duckdb.DuckDBPyConnection, settings: list[Setting]) -> str:
    """The headline results of a catalog as lines of text; a dash stands for a result that could not be computed.

    settings: (model, SAE setting), in the order of the lines.
    """
    return "\n".join([*_retrieval(con), "", *_saes(con, settings), "", *_stability(con, settings)])


def headlines(store: Path, run: Run) -> dict[str, float]:
    """The headline results of a run as {name: value}, for comparing runs. Results that are NULL are left out."""
    figures: dict[str, float | None] = {}
    with open_catalog(store, run=run) as con:
        for row in _headline(con, "saes"):
            figures |= {f"{row['model']} {row['sae']} {name}": row[name] for name in SAES}
        for row in _headline(con, "retrieval"):
            figures |= {f"{row['model']} {name}": row[name] for name in ("r1", "r10")}
        for model, sae in _settings(run):
            (row,) = _headline(con, "stability", model=model, sae=sae)
            figures |= {f"{model} {sae} {name}": row[name] for name in STABILITY}
    return {name: value for name, value in figures.items() if value is not None}


def _headline(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> list[Row]:
    """Rows of one headline query, each as {column: value}. NaN and infinity become None, as NULL does."""
    answer = con.execute(statement(f"headlines/{name}", **values))
    columns = [column[0] for column in answer.description or []]
    return [dict(zip(columns, map(_known, row), strict=True)) for row in answer.fetchall()]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None, form: str) -> str:
    """A result formatted as `form` says, such as "8.3f". An unknown result becomes a dash of the same width."""
    return f"{value:{form}}" if value is not None else f"{'-':>{len(f'{0.0:{form}}')}}"


def _settings(run: Run) -> list[Setting]:
    """(model, SAE setting) of the run's SAEs, in the order of the study."""
    return list(dict.fromkeys((entry.model, entry.sae) for entry in run.of("train")))


def _retrieval(con: duckdb.DuckDBPyConnection) -> list[str]:
    lines = ["held-out retrieval, image to caption   R@1 (chance)   R@10 (chance)"]
    for row in _headline(con, "retrieval"):
        of_1, of_10 = (f"{_number(row[f'r{k}'], '.3f')} ({_number(row[f'chance{k}'], '.3f')})" for k in (1, 10))
        lines.append(f"  {row['model']:{NAMES}} {of_1}  {of_10}")
    return lines if len(lines) > 1 else [*lines, "  not measured: there are no counted images with captions"]


def _saes(con: duckdb.DuckDBPyConnection, settings: list[Setting]) -> list[str]:
    of_settings = {(row["model"], row["sae"]): row for row in _headline(con, "saes")}
    rows = [of_settings[setting] for setting in settings if setting in of_settings]
    names = [f"{row['model']} {row['sae']} ({row['seeds']})" for row in rows]
    wide = max([NAMES, *map(len, names)])
    lines = [f"{'SAEs, mean of seeds':{wide + 3}}R2 image  R2 text    L0 (k)   dead  unimodal"]
    for name, row in zip(names, rows, strict=True):
        r2 = f"{_number(row['r2_image'], '8.3f')} {_number(row['r2_text'], '8.3f')}"
        share = f"{_number(row['dead'], '6.1%')}  {_number(row['unimodal'], '8.1%')}"
        lines.append(f"  {name:{wide}} {r2} {_number(row['l0'], '6.1f')} ({row['k']}) {share}")
    return lines


def _stability(con: duckdb.DuckDBPyConnection, settings: list[Setting]) -> list[str]:
    wide = max([NAMES, *(len(f"{model} {sae}") for model, sae in settings)])
    head = f"{'stability of pairs of seeds':{wide + 3}}all    top 32   floor random"
    lines = [f"{head}  floor matched (sd): all, top 32"]
    for model, sae in settings:
        name, (row,) = f"{model} {sae}", _headline(con, "stability", model=model, sae=sae)
        if row["stability"] is None:
            lines.append(f"  {name:{wide}} needs two seeds")
            continue
        head = f"  {name:{wide}} {row['stability']:.3f}"
        floor = f"{_number(row['floor_matched'], '.3f')} ({_number(row['floor_matched_sd'], '.4f')})"
        floors = f"{_number(row['floor_random'], '.3f')}         {floor}"
        if row["top_stability"] is None:
            lines.append(f"{head}           {floors}")
            continue
        top = f"{_number(row['top_floor_matched'], '.3f')} ({_number(row['top_floor_matched_sd'], '.4f')})"
        lines.append(f"{head}  {row['top_stability']:.3f}    {floors}, {top}")
    return lines
