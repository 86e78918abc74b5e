"""Threads: calls of one function on one item after another, side by side, with their results in order."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The number of cores of the machine; at least 1."""
    return os.cpu_count() or 1


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int = 2) -> Iterator[Result]:
    """Yield `work(item)` for every item, in the order of the items, computed on the given number of threads.

    At most ahead * threads items are taken from `items` at a time, so that neither items nor results accumulate in
    memory. `items` is consumed in the calling thread.
    """
    waiting_items = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        running = deque(pool.submit(work, item) for item in itertools.islice(waiting_items, ahead * threads))
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(work, item) for item in itertools.islice(waiting_items, 1))
            yield result
