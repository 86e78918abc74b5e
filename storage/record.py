"""The record of a run in progress. Each entry or failure is appended when its job ends, so a kill loses none."""

from __future__ import annotations

import json
import logging
import os
import traceback
from pathlib import Path
from typing import Any

from storage.dataset import locked, sync, write_atomically
from storage.runs import COUNT, ENDED, ENTRIES, FAILURES, RUN, Entry, Failure, Key, Run, closure, folder_of, numbers

log = logging.getLogger("bridgescope")

NEWEST = "newest"  # file with the highest number that a run of the study has had


class Record:
    """The folder of a run in progress. The first entry or failure creates the folder and gives it its number."""

    def __init__(self, store: Path, run: Run) -> None:
        self.store, self.run = store, run
        self.entries: dict[Key, Entry] = {}
        self.failures: list[Failure] = []
        self.folder: Path | None = None

    def add(self, *entries: Entry) -> None:
        """Append entries. An entry replaces the one with the same key."""
        self.entries.update({entry.key: entry for entry in entries})
        self._append(ENTRIES, [entry.model_dump(mode="json") for entry in entries])

    def fail(self, stage: str, key: Key, cause: str, error: BaseException) -> Failure:
        """Append a failure, and write the traceback of `error` to a separate file."""
        texts = self._begun() / "failures"
        texts.mkdir(exist_ok=True)
        text = texts / f"{len(self.failures) + 1}.txt"
        text.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
        where = text.relative_to(self.store).as_posix()
        failure = Failure(stage=stage, **key._asdict(), cause=cause, traceback=where)
        self.failures.append(failure)
        self._append(FAILURES, [failure.model_dump(mode="json")])
        return failure

    def end(self, how: str, seconds: float, missing: list[str]) -> Run:
        """Write how the run ended, and return the run. A run without entries and failures leaves no folder.

        The file also counts the lines of the entries, so that a reader notices when some are lost later.
        """
        ended: dict[str, Any] = {"ended": how, "seconds": round(seconds, 3), "missing": missing}
        if self.folder is not None:
            held = self.folder / ENTRIES
            lines = held.read_bytes().count(b"\n") if held.exists() else 0
            sync(held if held.exists() else self.folder)
            write_atomically(self.folder / ENDED, json.dumps({**ended, COUNT: lines}, indent=1))
        lists = {"entries": self.closed(), "failures": list(self.failures)}
        return self.run.model_copy(update={**ended, **lists})

    def closed(self) -> list[Entry]:
        """The entries so far, without those that were made from datasets of another run."""
        return closure(self.entries.values())

    def _append(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Append lines to a file, whose last line a kill can cut short. `end` syncs the entries."""
        if lines:
            with open(self._begun() / name, "a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))

    def _begun(self) -> Path:
        """Return the folder of the run. The first call makes the folder by one rename, with the next free number."""
        if self.folder is None:
            folder = folder_of(self.store, self.run.study)
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                # Numbers of deleted runs are not given again: pages and catalogs remember the number of their run.
                newest = folder / NEWEST
                number = max([_given(newest), *numbers(self.store, self.run.study)]) + 1
                write_atomically(newest, str(number))
                self.run = self.run.model_copy(update={"number": number})
                partial = folder / f"{number}.partial"
                partial.mkdir(exist_ok=True)
                head = self.run.model_dump(mode="json", exclude={"entries", "failures", "ended", "missing", "seconds"})
                write_atomically(partial / RUN, json.dumps(head, indent=1))
                os.rename(partial, folder / str(number))
                sync(folder)
            self.folder = folder / str(number)
        return self.folder


def _given(newest: Path) -> int:
    """Return the highest number that a run has had; 0 without the file, or with a warning if it cannot be read."""
    if not newest.exists():
        return 0
    text = newest.read_bytes().strip()
    if text.isdigit() and len(text) < 20:
        return int(text)
    log.warning("%s holds no number: the next run has the number after those that are in the store", newest)
    return 0


def write_run(store: Path, run: Run) -> Run:
    """Write all of a run that has ended, under the next free number."""
    record = Record(store, run)
    record.add(*run.entries)
    return record.end(run.ended or "complete", run.seconds, run.missing)
