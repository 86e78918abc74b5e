"""Errors whose message says what the user can change."""

from __future__ import annotations


class BadInput(ValueError):
    """Invalid input: the message names the value, its place and what is allowed. The command exits with 2."""

    exit_code = 2
