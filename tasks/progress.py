"""Progress bars on standard error, drawn only in a terminal."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def bar(total: int, label: str, unit: str = "rows", *, show: bool = True, position: int = 0) -> tqdm[Any]:
    """A bar that shows rows/s. Nothing is drawn outside a terminal, or when `show` is False."""
    return tqdm(
        total=total, desc=label, unit=f" {unit}", disable=None if show else True, position=position,
        leave=False, dynamic_ncols=True, unit_scale=True,
    )  # fmt: skip
