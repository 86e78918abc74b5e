"""The uses of a run: the paths of the datasets that the run makes or adopts, one path per line.

They are in a file beside the run's lease. A run writes the path of a dataset before it takes the lock of the dataset.
So a process that holds this lock, and finds the path in no file of uses, may delete the dataset. A run that asks for
the dataset later finds that the dataset is gone, and makes it again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

_held: list[Uses] = []  #: the uses of the runs of this process


class Uses:
    """The file of uses of one run. Only the process of the run writes this file."""

    def __init__(self, store: Path, file: Path) -> None:
        self.store, self.file = store, file
        self._noted: set[str] = set()
        self._guard = threading.Lock()

    def add(self, paths: Iterable[str]) -> None:
        """Write those paths of datasets that the file does not hold yet.

        The file is opened and closed each time, so that other machines on a network file system see the new lines.
        """
        with self._guard:
            new = [path for path in paths if path not in self._noted]
            if new:
                with open(self.file, "ab", buffering=0) as file:
                    file.write("".join(f"{path}\n" for path in new).encode())
                self._noted.update(new)


def read(file: Path) -> frozenset[str]:
    """Return the paths of datasets in the file of a run. No file means none. An incomplete last line counts too."""
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
