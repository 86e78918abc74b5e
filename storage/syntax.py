"""Reading Python's syntax while other threads read it, too."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
TRIES = 20  # each needs another thread, and a garbage collection, at the same moment


def parse(source: str | bytes) -> ast.Module:
    """Return `ast.parse(source)`. Raises what it raises: SyntaxError, and ValueError for a null byte."""
    return _alone(lambda: ast.parse(source))


def literal(text: str) -> Any:
    """Return `ast.literal_eval(text)`. Raises what it raises: SyntaxError, ValueError, TypeError, MemoryError."""
    return _alone(lambda: ast.literal_eval(text))


def _alone(read: Callable[[], T]) -> T:
    """Return `read()`, once no other thread came between.

    Python 3.11.7, 3.12.1 and older count the depth of all trees under construction in one variable. When a garbage
    collection lets another thread in, which builds a tree as well, the first thread finds a wrong depth at its end and
    raises SystemError (cpython issue 106905). The source is not at fault, so it is read again.
    """
    for _ in range(TRIES - 1):
        try:
            return read()
        except SystemError as error:
            if not came_between(error):
                raise
    return read()


def came_between(error: BaseException) -> bool:
    """Whether an error says that another thread built a tree at the same moment, in this code or in a library's."""
    return isinstance(error, SystemError) and "AST constructor recursion depth mismatch" in str(error)
