"""Progress bars on standard error, drawn only in a terminal."""

from __future__ import annotations

import sys
import threading
from typing import Any

from tqdm import tqdm

EVERY = 0.5  # seconds between two drawings of a bar whose work reports no steps


def bar(total: int, label: str, unit: str = "rows", *, show: bool = True, position: int | None = None) -> tqdm[Any]:
    """A bar that shows rows/s and the time left. Nothing is drawn outside a terminal, or when `show` is False.

    position: the line of the bar below the cursor; None stands for the first free line.
    """
    return tqdm(
        total=total, desc=label, unit=f" {unit}", disable=None if show else True, position=position,
        leave=False, dynamic_ncols=True, unit_scale=True,
    )  # fmt: skip


def drawn() -> bool:
    """Whether bars are drawn: standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


class Ticking:
    """A bar for work that reports few steps, or none: a thread draws it twice per second, so its clock keeps running.

    Outside a terminal, and when `show` is False, it does nothing.
    """

    def __init__(self, label: str, total: int | None = None, unit: str = "datasets", *, show: bool = True) -> None:
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None
        self.rows = 0
        if not (show and drawn()):
            return
        form = None if total else "{desc} [{elapsed}]"
        self.shown = tqdm(
            total=total, desc=label, unit=f" {unit}", leave=False, dynamic_ncols=True, bar_format=form, position=0
        )
        self.thread = threading.Thread(target=self._draw, daemon=True, name="progress")
        self.thread.start()

    def _draw(self) -> None:
        while not self.stop.wait(EVERY):
            self.shown.refresh()

    def step(self, rows: int = 0) -> None:
        """Count one more unit as done. With `rows`, the bar shows the rows per second of all units."""
        if self.thread is None:
            return
        self.rows += rows
        if self.rows and (seconds := self.shown.format_dict["elapsed"]) > 0:
            self.shown.set_postfix_str(f"{self.rows / seconds:,.0f} rows/s", refresh=False)
        if self.shown.total is not None:
            self.shown.total = max(self.shown.total, self.shown.n + 1)
        self.shown.update(1)

    def close(self) -> None:
        """Clear the bar. A second call does nothing."""
        self.stop.set()
        if self.thread is not None:
            self.thread.join()
            self.shown.close()
            self.thread = None
