"""Uses: which datasets a run makes or adopts, one path a line in a file beside the run's lease.

A path is written before the dataset's lock is taken. So whoever holds that lock and finds no use knows that a run which
asks for the dataset later will find it gone, and make it again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

_held: list[Uses] = []  #: of the runs of this process


class Uses:
    """The file of one run, which the run's own process alone writes."""

    def __init__(self, store: Path, file: Path) -> None:
        self.store, self.file = store, file
        self._noted: set[str] = set()
        self._guard = threading.Lock()

    def add(self, paths: Iterable[str]) -> None:
        """Write the paths of datasets that the file does not hold yet.

        The file is opened and closed each time: on a network file system other machines then see the lines.
        """
        with self._guard:
            new = [path for path in paths if path not in self._noted]
            if new:
                with open(self.file, "ab", buffering=0) as file:
                    file.write("".join(f"{path}\n" for path in new).encode())
                self._noted.update(new)


def read(file: Path) -> frozenset[str]:
    """The paths of datasets in the file of a run; none when there is no file. A last line that was cut short counts."""
    try:
        return frozenset(file.read_bytes().decode(errors="replace").split("\n")) - {""}
    except FileNotFoundError:
        return frozenset()


def note(store: Path, path: str) -> None:
    """Write the path of a dataset into the file of every run of this process in this store."""
    for uses in list(_held):
        if uses.store == store:
            uses.add([path])


@contextlib.contextmanager
def noting(uses: Uses) -> Iterator[None]:
    """Let `note` write into the file of a run until the block ends."""
    _held.append(uses)
    try:
        yield
    finally:
        _held.remove(uses)
