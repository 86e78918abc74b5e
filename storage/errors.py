"""Errors whose message says what the user can change."""

from __future__ import annotations


class BadInput(ValueError):
    """Invalid input. The message names the value, its place and what is allowed. The command exits with status 2."""

    exit_code = 2


def is_bad_input(error: BaseException) -> bool:
    """Whether an error is one of bad input: BadInput, or an error of another room with the same exit code."""
    return getattr(error, "exit_code", 1) == BadInput.exit_code
