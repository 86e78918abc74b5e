"""Differences between two runs of a study: settings, pairs, versions, datasets and headline results."""

from __future__ import annotations

from pathlib import Path

from flows.differences import differences
from flows.results import headlines
from storage.errors import BadInput
from storage.runs import Run, numbers, read_run, shown_run


def two_runs(store: Path, study: str, a: str | None, b: str | None) -> tuple[Run, Run]:
    """Return the runs that `a` and `b` name: a number names a run, a variant names its newest complete run.

    Without `b`, the newest run is the second run. Without both, the newest two runs are returned. Raises BadInput
    when there is no such run.
    """
    existing = numbers(store, study)
    if len(existing) < 2 and (a is None or b is None):
        raise BadInput(f"study {study!r} has {len(existing)} runs in {store}: a comparison takes two")
    newest = str(existing[-1]) if existing else ""
    before = str(existing[-2]) if len(existing) > 1 else newest
    return _run(store, study, a or before), _run(store, study, b or newest)


def _run(store: Path, study: str, named: str) -> Run:
    if named.isdecimal():
        return read_run(store, study, int(named))
    return shown_run(store, study, variant=named)


def diff(store: Path, a: Run, b: Run) -> list[str]:
    """Return the lines to print: the differences from run `a` to run `b`."""
    lines = [f"{a.study}: {a} -> {b}"]
    lines += _section("settings", differences(a.config, b.config))
    lines += _section("pairs", _pairs(a, b))
    lines += _section("versions", differences(a.versions, b.versions))
    lines += _section("datasets", _datasets(a, b))
    return lines + _section("results", _figures(store, a, b))


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else [f"{title}: the same"]


def _pairs(a: Run, b: Run) -> list[str]:
    """One line per shard of pairs that is new, gone or changed, with its number of images."""
    old, new = ({e.shard: e.dataset for e in run.of("acquire")} for run in (a, b))
    lines = []
    for shard in sorted(old.keys() | new.keys(), key=lambda shard: shard or 0):
        was, now = old.get(shard), new.get(shard)
        if was is None and now is not None:
            lines.append(f"shard {shard}: new, {now.rows} images")
        elif now is None and was is not None:
            lines.append(f"shard {shard}: gone, {was.rows} images")
        elif was is not None and now is not None and was.digest != now.digest:
            lines.append(f"shard {shard}: changed, {was.rows} -> {now.rows} images")
    return lines


def _datasets(a: Run, b: Run) -> list[str]:
    """One line per kind whose datasets differ: how many are new, how many have other bytes, how many are gone."""
    lines = []
    for kind in dict.fromkeys(entry.kind for entry in (*a.entries, *b.entries)):
        was, now = ({entry.key: entry.dataset for entry in run.of(kind)} for run in (a, b))
        other = sum(was[key].digest != now[key].digest for key in was.keys() & now.keys())
        counts = {"new": len(now.keys() - was.keys()), "with other bytes": other, "gone": len(was.keys() - now.keys())}
        changes = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if changes:
            lines.append(f"{kind}: {changes} (of {len(now)})")
    return lines


def _figures(store: Path, a: Run, b: Run) -> list[str]:
    """Table of the headline results of both runs and their change. A single line when a run has no tables to read."""
    sides: list[dict[str, float]] = []
    for run in (a, b):
        tables = run.of("analyze")
        if not tables:
            return [f"run {run.number} did not reach the stage analyze: nothing to compare"]
        if not (store / tables[0].dataset.path).is_dir():
            return [f"the tables of run {run.number} are no longer in the store (bridgescope gc --keep N keeps more)"]
        sides.append(headlines(store, run))
    old, new = sides
    wide = max((len(name) for name in (*old, *new)), default=0)
    lines = [f"{'':{wide}} {f'run {a.number}':>10} {f'run {b.number}':>10} {'change':>10}"]
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        change = f"{now - was:+10.4f}" if was is not None and now is not None else f"{'':10}"
        lines.append(f"{name:{wide}} {_number(was)} {_number(now)} {change}".rstrip())
    return lines


def _number(value: float | None) -> str:
    return f"{value:10.4f}" if value is not None else f"{'-':>10}"
