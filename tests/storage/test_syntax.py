"""Syntax trees are built while other code builds them, as another thread does during a garbage collection."""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable, Iterator

import pytest

from storage import syntax

SOURCE = "\n".join(f"def f{n}(a, b):\n    return [a + b * c for c in range({n})]" for n in range(50))


@pytest.fixture
def collected() -> Iterator[list[str]]:
    """The tenth garbage collection builds a tree, from deeper in the stack. Yields what the collections did."""
    done: list[str] = []

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            ast.parse("1 + 1")

    def collect(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            done.append(phase)
            if len(done) == 10:
                deeper(30)

    thresholds = gc.get_threshold()
    gc.callbacks.append(collect)
    gc.set_threshold(20)
    yield done
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(collect)


def test_a_tree_is_built_whole_while_other_code_builds_one(collected: list[str]) -> None:
    tree = syntax.parse(SOURCE)
    assert len(collected) >= 10
    assert ast.dump(tree) == ast.dump(ast.parse(SOURCE))


def test_a_literal_is_read_while_other_code_builds_a_tree(collected: list[str]) -> None:
    assert syntax.literal(str(list(range(500)))) == list(range(500))
    assert len(collected) >= 10


@pytest.mark.parametrize("read", [syntax.parse, syntax.literal])
def test_a_fault_of_the_source_is_raised(read: Callable[[str], object]) -> None:
    with pytest.raises(SyntaxError):
        read("def f(:")
