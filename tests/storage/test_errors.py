"""Bad input is told from other errors by its exit code, since each room may have an error class of its own."""

from __future__ import annotations

import pytest

from storage.errors import BadInput, is_bad_input
from tasks.children import ChildFailed, ChildRefused
from vlm import SpecError


@pytest.mark.parametrize("error", [BadInput("no captions"), ChildRefused("no captions"), SpecError("no such model")])
def test_errors_with_exit_code_2_are_bad_input(error: Exception) -> None:
    assert is_bad_input(error)


@pytest.mark.parametrize("error", [ValueError("nan"), OSError(5, "Input/output error"), ChildFailed("died")])
def test_other_errors_are_not_bad_input(error: Exception) -> None:
    assert not is_bad_input(error)
