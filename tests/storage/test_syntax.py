"""Syntax trees are built while other code builds them, as another thread does during a garbage collection."""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest
from tests_support import another_tree_at_once

from storage import syntax

SOURCE = "\n".join(f"def f{n}(a, b):\n    return [a + b * c for c in range({n})]" for n in range(50))


def test_a_tree_is_built_whole_while_other_code_builds_one() -> None:
    with another_tree_at_once() as collections:
        tree = syntax.parse(SOURCE)
    assert len(collections) >= 10
    assert ast.dump(tree) == ast.dump(ast.parse(SOURCE))


def test_a_literal_is_read_while_other_code_builds_a_tree() -> None:
    with another_tree_at_once() as collections:
        assert syntax.literal(str(list(range(500)))) == list(range(500))
    assert len(collections) >= 10


@pytest.mark.parametrize("read", [syntax.parse, syntax.literal])
def test_a_fault_of_the_source_is_raised(read: Callable[[str], object]) -> None:
    with pytest.raises(SyntaxError):
        read("def f(:")
