"""Errors whose message says what the user can change."""

from __future__ import annotations


class BadInput(ValueError):
    """Invalid input. The message names the value, its place and what is allowed. The command exits with status 2."""

    exit_code = 2
