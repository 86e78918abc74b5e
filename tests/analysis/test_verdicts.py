"""On data in which every claim is false, hardly any verdict holds; `bench/verdicts.py` makes 40 draws of more data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from analysis import geometry


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The module of the bench, with small numbers."""
    source = Path(__file__).parents[2] / "bench" / "verdicts.py"
    spec = importlib.util.spec_from_file_location("verdicts", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.IMAGES, module.WIDTH, module.DIM = 60, 16, 8
    return module


def test_no_verdict_holds_on_permuted_data(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "DRAWS", 100)
    counts = bench.counted([bench.findings_by_chance(draw) for draw in range(3)])
    assert counts.total() == 3 * 13
    assert sum(n for (_, verdict), n in counts.items() if verdict == "holds") <= 0.05 * 3 * 13
    assert {verdict for _, verdict in counts} >= {"fails", "undecided"}
