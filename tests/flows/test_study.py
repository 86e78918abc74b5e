"""Whole studies on a real Prefect server: cached, resumed, rerun in parts, and moved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from tests_support import RUN, FinishedStudy, begin, computed, end, tables

import tasks.train
from flows.config import load_study
from flows.fresh import nothing_to_do
from flows.status import status
from flows.study import Finished, run_study
from storage import open_catalog
from storage.dataset import manifest_of
from storage.errors import BadInput
from storage.runs import last_run
from tasks.fit import Fit, fit_in_process

pytestmark = pytest.mark.usefixtures("prefect_server")


def run(study: Path, store: Path, *changes: str, **options: object) -> Finished:
    return run_study(load_study(study, list(changes)), store, progress=False, **options)  # type: ignore[arg-type]


@pytest.fixture
def copy(finished_study: FinishedStudy, tmp_path: Path) -> tuple[Path, Path]:
    """The finished study with a copy of its store. This works, since no dataset depends on the store's path."""
    shutil.copytree(finished_study.store, tmp_path / "elsewhere")
    return finished_study.file, tmp_path / "elsewhere"


def test_a_study_makes_every_view(finished_study: FinishedStudy) -> None:
    store = finished_study.store
    con = open_catalog(store)
    counts = {
        view: con.execute(f"SELECT count(*) FROM {view}").fetchone()[0]
        for view in ("images", "pairs", "saes", "training", "activations", "concepts", "matches", "bridges", "nulls")
    }
    assert counts["images"] == 2200
    assert counts["pairs"] == 4400
    assert counts["saes"] == 2
    assert counts["concepts"] == 2 * 24
    assert counts["matches"] == 2 * 24
    assert all(counts.values())
    assert (store / "report" / "small" / "index.html").stat().st_size > 10_000


def test_an_entry_shows_how_long_its_dataset_took_to_make(finished_study: FinishedStudy) -> None:
    # Each seed is trained in a separate process. The task of an entry only finds the dataset that this process wrote.
    store, made = finished_study.store, finished_study.run
    for entry in made.of("train"):
        assert entry.seconds == manifest_of(store, entry.dataset)["seconds"]


def test_a_second_run_in_a_moved_store_does_nothing_again(copy: tuple[Path, Path]) -> None:
    study, store = copy
    again = run(study, store)
    assert computed(again.run) == []
    assert again.run.number == 2
    assert (store / "studies" / "small" / "catalog.root").read_text().startswith(f"{store}\n")


def test_a_study_with_nothing_to_do_says_so_without_prefect(copy: tuple[Path, Path], tmp_path: Path) -> None:
    study, store = copy
    home = tmp_path / "prefect"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    code, errors = end(begin(RUN, study, store, environment | {"PREFECT_HOME": str(home)}))
    assert code == 0, errors
    assert "nothing new: 28 datasets are complete, run 2" in errors
    assert not home.exists()
    again = last_run(store, "small")
    assert again is not None
    assert again.is_complete
    assert computed(again) == []

    # There is nothing to do until a setting changes or a file is lost. Without a last run there is work to do.
    assert nothing_to_do(load_study(study), store, again) is not None
    assert nothing_to_do(load_study(study, ["saes.main.k=4"]), store, again) is None
    next((store / again.of("export")[0].dataset.path).glob("*.parquet")).unlink()
    assert nothing_to_do(load_study(study), store, again) is None
    assert nothing_to_do(load_study(study), store, None) is None


@pytest.mark.slow
def test_deleting_one_sae_trains_that_one_and_equal_bytes_rerun_nothing_else(copy: tuple[Path, Path]) -> None:
    study, store = copy
    shutil.rmtree(store / last_run(store, "small").of("train", seed=1)[0].dataset.path)
    again = run(study, store)
    assert computed(again.run) == [("train", 1)]


@pytest.mark.slow
def test_an_sae_with_other_bytes_reruns_just_what_hangs_on_it(
    copy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, store = copy

    def another(job: Fit) -> int:
        return fit_in_process(job._replace(seed=job.seed + 100))

    shutil.rmtree(store / last_run(store, "small").of("train", seed=1)[0].dataset.path)
    monkeypatch.setattr(tasks.train, "fit_in_process", another)
    again = run(study, store)
    tables = [("matching", 0), ("measures", 1), ("partners", 0), ("names", 1), ("analyze", None)]
    below = [("export", 1), ("export", 1), ("atoms", 1), *tables, ("report", None), ("layout", 1), ("explorer", None)]
    assert computed(again.run) == [("train", 1), *below]


@pytest.mark.slow
def test_a_lost_file_is_made_again(copy: tuple[Path, Path]) -> None:
    study, store = copy
    path = store / last_run(store, "small").of("export", seed=0, shard=1)[0].dataset.path / "1.parquet"
    path.unlink()
    assert computed(run(study, store).run) == [("export", 0)]
    assert path.exists()


@pytest.mark.slow
def test_one_more_seed_trains_one_sae_and_runtime_settings_make_nothing_stale(copy: tuple[Path, Path]) -> None:
    study, store = copy
    assert computed(run(study, store, "runtime.embed_batch_size=32").run) == []
    again = run(study, store, "saes.main.seeds=[0, 1, 2]")
    assert [entry for entry in computed(again.run) if entry[0] == "train"] == [("train", 2)]
    assert [entry for entry in computed(again.run) if entry[0] == "export"] == [("export", 2), ("export", 2)]


@pytest.mark.slow
def test_data_diets_are_trained_and_matched_with_their_setting(copy: tuple[Path, Path]) -> None:
    study, store = copy
    again = run(study, store, "diets.image_share=[1]", "diets.halves=true", "saes.main.seeds=[0]")
    assert [entry.sae for entry in again.run.of("train")] == ["main", "main-share1", "main-half-a", "main-half-b"]
    assert [entry.cached for entry in again.run.of("train")] == [True, False, False, False]
    with open_catalog(store) as con:
        halves = con.execute("SELECT sae, data_half FROM saes WHERE data_half IS NOT NULL ORDER BY sae").fetchall()
        assert halves == [("main-half-a", "a"), ("main-half-b", "b")]
        pairs = con.execute("SELECT count(*) FROM (SELECT DISTINCT sae_a, sae_b FROM matches)").fetchone()
        assert pairs == (4 * 3,)  # each of the 4 settings with each of the 3 others
        rows_seen = dict(con.execute("SELECT sae, rows_seen FROM saes").fetchall())
    # An SAE on half of the images is trained for twice the epochs, so it sees almost as many rows as `main`.
    assert abs(rows_seen["main-half-a"] - rows_seen["main"]) < 0.2 * rows_seen["main"]


@pytest.mark.slow
def test_one_stage_alone_and_force_recompute_just_that_stage(copy: tuple[Path, Path]) -> None:
    study, store = copy
    before = last_run(store, "small")
    forced = run(study, store, only="train", force=True)
    assert computed(forced.run, of="train") == [("train", 0), ("train", 1)]
    assert [e.dataset for e in forced.run.of("train")] == [e.dataset for e in before.of("train")]  # equal bytes
    assert [e.dataset for e in forced.run.of("analyze")] == [e.dataset for e in before.of("analyze")]  # still fresh
    assert forced.run.is_complete
    assert computed(run(study, store).run) == []


def test_a_stage_without_its_inputs_is_bad_input(copy: tuple[Path, Path], tmp_path: Path) -> None:
    study, store = copy
    shutil.rmtree(store / last_run(store, "small").of("embed", shard=0)[0].dataset.path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"embed own shard 0 is missing or stale: run --only embed first"):
        run(study, store, only="train")
    with pytest.raises(BadInput, match="has no pairs yet"):
        run(study, tmp_path / "empty", only="embed")
    with pytest.raises(BadInput, match="no such stage; stages are acquire"):
        run(study, store, only="bake")


def test_status_says_what_is_fresh_stale_or_missing_and_why(copy: tuple[Path, Path]) -> None:
    study, store = copy
    assert {row.state for row in status(load_study(study), store)} == {"fresh"}
    changed = {str(row.key): row for row in status(load_study(study, ["saes.main.k=4"]), store)}
    assert changed["embed own shard 0"].state == "fresh"
    assert changed["train own main seed 0"].state == "stale"
    assert changed["train own main seed 0"].why == "changed: setting.k 3 -> 4"
    assert changed["analyze"].why == "its inputs are missing or stale"
    shutil.rmtree(store / last_run(store, "small").of("train", seed=0)[0].dataset.path)
    states = {str(row.key): row for row in status(load_study(study), store)}
    assert (states["train own main seed 0"].state, states["train own main seed 1"].state) == ("missing", "fresh")
    assert "is gone" in states["train own main seed 0"].why
    assert {row.state for row in status(load_study(study), store / "studies")} == {"missing"}


def test_tables_agree_with_the_activations(finished_study: FinishedStudy) -> None:
    store, run_ = finished_study.store, finished_study.run
    con = open_catalog(store)
    recomputed = con.execute(
        """SELECT sum(activation::DOUBLE) / (SELECT count(*) FROM pairs WHERE split = 'heldout')
        FROM activations JOIN pairs ON pair_id = item_id
        WHERE modality = 'text' AND split = 'heldout' AND seed = 0 AND concept_id = 5"""
    ).fetchone()
    stored = tables(store, run_)["concepts"].filter((pl.col("seed") == 0) & (pl.col("concept_id") == 5))["energy_text"]
    assert recomputed[0] == pytest.approx(stored[0], rel=1e-9)
