"""docs/scaling.md holds the output of bench/scaling.py. The figures equal formulas that are worked by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scaling() -> dict[str, object]:
    return runpy.run_path(str(ROOT / "bench" / "scaling.py"))


def test_the_page_holds_the_tables_that_the_script_prints(scaling: dict[str, object]) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    for table in scaling["tables"]().split("\n\n"):  # type: ignore[operator]
        assert table in page
    assert "No GPU was measured" in page


def test_figures_worked_by_hand(scaling: dict[str, object]) -> None:
    values = {row.what: row.values for row in scaling["rows"]()}  # type: ignore[operator]
    # The four models have d = 512 + 3 x 768 = 2816 dimensions in total, of 2 bytes each. For 12 M images and 12 M
    # captions: 24e6 x 2 x 2816 = 135.168 GB
    assert values["embeddings"][1] == pytest.approx(135.168)
    # The four models need 8.82 + 35.42 + 35.42 + 162 = 241.66 GFLOP per image and 5.96 + 11.02 + 11.02 + 13.3 = 41.3
    # GFLOP per caption, 282.96 per pair: 12e6 x 282.96e9 = 3.39552 EFLOP
    assert values["embed"][1] == pytest.approx(3.39552)
    # At 35 % of the 312e12 FLOP/s of an A100: 3.39552e18 / (312e12 x .35) / 3600 = 8.6374 hours
    assert values["GPU-hours: embed"][1] == pytest.approx(8.6374, abs=1e-4)
    # 4 models x 5 seeds x 24e6 rows x 20 codes x 5 bytes = 48 GB
    assert values["activations"][1] == pytest.approx(48)
    # A core decodes 134 images per second: 4 models x 12e6 images / 134 / 3600 = 99.5 core-hours
    assert values["core-hours: decode"][1] == pytest.approx(99.5, abs=0.05)
