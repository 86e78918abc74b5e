"""Log lines of the command line, which share the terminal with progress bars."""

from __future__ import annotations

import logging
import sys


class AboveBars(logging.StreamHandler):
    """A handler that writes log lines above the bars of a terminal, not into them.

    The library of the bars, `tqdm`, is used only where something else has imported it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. Bars are cleared before and drawn again after it."""
        if "tqdm" not in sys.modules or not self.stream.isatty():
            super().emit(record)
            return
        with sys.modules["tqdm"].tqdm.external_write_mode(file=self.stream):
            super().emit(record)
