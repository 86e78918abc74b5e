"""Bars in a terminal: a clock from the first second, rows per second and time left; nothing in a file."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

from flows.terminal import AboveBars
from tasks.progress import Ticking


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawings(printed: io.StringIO) -> list[str]:
    return [line.strip() for line in printed.getvalue().replace("\n", "\r").split("\r") if line.strip()]


def test_a_bar_without_steps_shows_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", printed := Terminal())
    monkeypatch.setattr("tasks.progress.EVERY", 0.01)
    waiting = Ticking("starting")
    assert drawings(printed)[0] == "starting [00:00]"  # at once, not at the first step
    at_first = len(drawings(printed))
    for _ in range(200):
        if len(drawings(printed)) > at_first + 2:
            break
        time.sleep(0.02)
    assert len(drawings(printed)) > at_first + 2
    waiting.close()
    waiting.close()
    assert printed.getvalue().endswith("\r")  # the line is cleared
    assert waiting.thread is None


def test_a_bar_with_steps_shows_rows_per_second_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", printed := Terminal())
    shown = Ticking("embed", 2)
    shown.step(rows=1000)
    shown.shown.refresh()
    assert "1/2" in drawings(printed)[-1]
    assert "rows/s" in drawings(printed)[-1]
    shown.step()
    shown.step()  # a job that was not foreseen, such as a check
    shown.shown.refresh()
    assert "3/3" in drawings(printed)[-1]
    shown.close()


def test_nothing_is_drawn_outside_a_terminal_or_when_bars_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", printed := io.StringIO())
    for shown in (Ticking("embed", 2), Ticking("starting")):
        shown.step(rows=5)
        shown.close()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    Ticking("embed", 2, show=False).close()
    assert (printed.getvalue(), terminal.getvalue()) == ("", "")


def test_log_lines_are_written_above_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", printed := Terminal())
    shown = Ticking("embed", 2)
    AboveBars(printed).emit(logging.makeLogRecord({"msg": "a line"}))
    after = printed.getvalue().partition("a line\n")
    assert after[0].endswith("\r")  # the bar was cleared
    assert "embed" in after[2]  # and drawn again
    shown.close()
    AboveBars(plain := io.StringIO()).emit(logging.makeLogRecord({"msg": "a line"}))
    assert plain.getvalue() == "a line\n"
