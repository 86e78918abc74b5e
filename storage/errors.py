"""Errors that tell a person what to change."""

from __future__ import annotations


class BadInput(ValueError):
    """Something the user gave is wrong: the message names what, where, and what is allowed. Ends a command with 2."""

    exit_code = 2
