"""The published copy of a run's page: `report/<study>/`, which is replaced as a whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from storage.dataset import locked, write_atomically
from storage.duplicates import link
from storage.runs import Run
from storage.site import SITE


def publish_report(store: Path, run: Run, *, anyway: bool = False) -> Path | None:
    """Copy the run's page and the explorer's data to `report/<study>/`, unless they are there or a newer run's are.

    anyway: copy them even over the page and data of a newer run.

    Returns the path of the page, or None for a run without one. If two runs end at the same time, the page of the
    newer run stays, whichever run ends first.
    """
    reports = run.of("report")
    if not reports:
        return None
    final = store / "report" / run.study
    partial, aside = final.with_name(f"{run.study}.partial"), final.with_name(f"{run.study}.old")
    shown = (
        store / "studies" / run.study / "published"
    )  #: file with the number of the run that was copied last, and its digests
    digests = " ".join(entry.dataset.digest for entry in (*reports, *run.of("explorer")))
    with locked(final):
        number, _, there = shown.read_text().partition(" ") if final.exists() and shown.exists() else ("0", "", "")
        if there == digests or (int(number) > run.number and not anyway):
            write_atomically(shown, f"{max(int(number), run.number)} {there}")
            return final / "index.html"
        for leftover in (partial, aside):
            shutil.rmtree(leftover, ignore_errors=True)
        ignore = shutil.ignore_patterns("dataset.json", "cached.json")
        shutil.copytree(store / reports[0].dataset.path, partial, ignore=ignore)
        for explorer in run.of("explorer"):
            link(store / explorer.dataset.path / SITE, partial / "explorer.zip")
        if final.exists():
            os.rename(final, aside)
        os.rename(partial, final)
        shutil.rmtree(aside, ignore_errors=True)
        write_atomically(shown, f"{run.number} {digests}")
    return final / "index.html"
