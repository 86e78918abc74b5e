"""A small run of `make torture-pictures`: both stages over mutated pictures, under a limit of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[1] / "torture" / "pictures.py"


@pytest.mark.slow
def test_every_mutated_picture_is_embedded_or_counted() -> None:
    done = subprocess.run([sys.executable, TORTURE, "--count", "300", "--seed", "7"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 pictures, 0 wrong" in done.stdout
