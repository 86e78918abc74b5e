"""The output of `bridgescope diff` for two runs of a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import grow, write_study

from flows.cli import main
from flows.config import load_study
from flows.study import run_study
from storage import open_catalog
from storage.runs import read_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def test_diff_names_settings_pairs_and_datasets_and_puts_the_figures_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, store = write_study(tmp_path, images=400), tmp_path / "store"
    store.mkdir()
    assert main(["diff", "small", "--store", str(store)]) == 2
    assert "no study of this name has run in" in capsys.readouterr().err
    run_study(load_study(study), store, progress=False)
    run_study(load_study(study), store, progress=False, only="report", force=True)
    grow(tmp_path / "vectors")
    run_study(load_study(study, ["saes.main.k=4"]), store, progress=False)

    assert main(["diff", str(study), "1", "2", "--store", str(store)]) == 0
    same = capsys.readouterr().out.splitlines()
    assert same[1:5] == ["settings: the same", "pairs: the same", "versions: the same", "datasets: the same"]

    assert main(["diff", "small", "--store", str(store)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("small: run 2 of ")
    assert "saes.main.k 3 -> 4" in lines
    assert "shard 1: new, 10 images" in lines
    assert "train: 2 with other bytes (of 2)" in lines
    assert "export: 2 new, 2 with other bytes (of 4)" in lines
    # The printed figures are those of the catalog.
    shown = next(line.split() for line in lines if line.startswith("own main r2_image"))[3:]
    means = []
    for number in (2, 3):
        con = open_catalog(store, run=read_run(store, "small", number))
        means.append(con.execute("SELECT avg(r2_image) FROM saes").fetchone()[0])
    assert shown == [f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[1] - means[0]:+.4f}"]

    # The name of a variant means its newest complete run.
    assert main(["diff", "small", "base", "saes.main.k=4", "--store", str(store)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("small: run 2 of ")

    assert main(["gc", "--yes", "--drop", "small:base", "--store", str(store)]) == 0
    assert main(["diff", "small", "3", "3", "--store", str(store)]) == 0
    capsys.readouterr()
    assert main(["diff", "small", "1", "3", "--store", str(store)]) == 2
    assert "has no run 1. Available: 3." in capsys.readouterr().err
