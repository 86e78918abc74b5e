"""`retrain`: an SAE is kept when rows are added. It is trained anew when its training input changed otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.config import Study
from flows.jobs.job import Given, Job
from flows.jobs.train import saes
from flows.sections import ImportedSAE
from storage.dataset import Address, Dataset, materialize
from storage.runs import Entry, Run, State
from tasks.embed import embed
from tasks.stage import Stage

ROWS = 100  # rows of a shard


def study(**changes: Any) -> Study:
    setting = {"name": "main", "width": 24, "k": 3, "seeds": [0], "retrain": "never", **changes.pop("setting", {})}
    pairs = {"source": "npm-emoji", "heldout": 0.25, **changes.pop("pairs", {})}
    models = [{"name": "own", "spec": "clip", **changes.pop("model", {})}]
    assert not changes
    return Study.model_validate({"name": "small", "pairs": pairs, "models": models, "saes": [setting]})


def made(store: Path, at: Address, text: str, rows: int) -> Dataset:
    """Write a real dataset of one file and a manifest."""

    def body(out: Path) -> int:
        (out / "file").write_text(text)
        return rows

    return materialize(store, at, body)


def state_of(store: Path, shards: int, model: str = "a", dtype: str = "float32", dim: int = 12) -> State:
    """The state of a store with some shards of pairs, each embedded by one model."""
    state = State()
    for shard in range(shards):
        pairs = made(store, Address("pairs", "1", {"shard": shard}, ()), f"pairs {shard}", ROWS)
        at = embed.address(pairs=pairs, model=model, dtype=dtype, spec="not hashed")
        vectors = made(store, at, f"{model} {dtype} {dim} {shard}", ROWS)
        state.add(Entry(kind="acquire", shard=shard, dataset=pairs))
        state.add(Entry(kind="embed", model="own", shard=shard, dataset=vectors, inputs=[pairs]))
    return state


def train_job(study: Study, state: State, last: Run | None, store: Path) -> Job:
    (job,) = saes(Given(study, state, last, store))
    return job


def first_run(store: Path, study: Study) -> Run:
    """A run of two shards, with its SAE."""
    state = state_of(store, 2)
    job = train_job(study, state, None, store)
    trained = made(store, _address(job.stage, job), "weights", 2 * ROWS)
    state.add(job.entry(trained))
    entries = list(state.values())
    config = study.model_dump(mode="json")
    return Run(study="small", number=1, config=config, entries=entries, started="", seconds=0, versions={})


def _address(stage: Stage, job: Job) -> Address:
    return stage.address(**job.arguments())


def shards_trained_on(job: Job) -> int:
    assert len(job.arguments()["pairs"]) == len(job.arguments()["embeddings"])
    return len(job.arguments()["embeddings"])


@pytest.mark.parametrize(
    ("retrain", "shards", "trained_on"),
    [("never", 4, 2), (2.5, 4, 2), (1.5, 4, 4), ("always", 3, 3), ("never", 2, 2)],
)
def test_rows_that_grew_are_what_retrain_is_about(tmp_path: Path, retrain: Any, shards: int, trained_on: int) -> None:
    file = study(setting={"retrain": retrain})
    last = first_run(tmp_path, file)
    job = train_job(file, state_of(tmp_path, shards), last, tmp_path)
    assert shards_trained_on(job) == trained_on
    is_kept = job.lookup(tmp_path) == last.of("train")[0].dataset
    assert is_kept == (trained_on == 2)


@pytest.mark.parametrize("retrain", ["never", 1.9])
@pytest.mark.parametrize(
    ("embedded", "changes"),
    [
        ({"model": "b"}, {}),
        ({"dtype": "bfloat16"}, {"model": {"dtype": "bfloat16"}}),
        ({"model": "b", "dim": 16}, {}),
        ({}, {"pairs": {"heldout": 0.5}}),
        ({}, {"setting": {"k": 4}}),
        ({}, {"setting": {"width": 32}}),
        ({}, {"setting": {"epochs": 7}}),
    ],
)
def test_an_sae_of_another_model_split_or_setting_is_trained_anew_on_every_shard(
    tmp_path: Path, embedded: dict[str, Any], changes: dict[str, Any], retrain: Any
) -> None:
    last = first_run(tmp_path, study(setting={"retrain": retrain}))
    now = study(**changes | {"setting": changes.get("setting", {}) | {"retrain": retrain}})
    state = state_of(tmp_path, 3, **embedded)
    job = train_job(now, state, last, tmp_path)
    assert job.lookup(tmp_path) is None
    assert job.arguments()["embeddings"] == [entry.dataset for entry in state.of("embed")]


def test_an_sae_whose_rows_left_the_store_is_not_taken_for_one_of_the_same_model(tmp_path: Path) -> None:
    file = study()
    last = first_run(tmp_path, file)
    (tmp_path / last.of("embed")[0].dataset.path / "dataset.json").unlink()
    state = state_of(tmp_path, 3, model="b")
    assert shards_trained_on(train_job(file, state, last, tmp_path)) == 3


def test_numbers_left_to_the_rows_are_those_of_the_rows_that_the_sae_is_trained_on(tmp_path: Path) -> None:
    file = study(setting={"retrain": 3})
    last = first_run(tmp_path, file)
    kept = train_job(file, state_of(tmp_path, 5), last, tmp_path).arguments()["setting"]
    anew = train_job(file, state_of(tmp_path, 60), last, tmp_path).arguments()["setting"]
    # Three quarters of 2 and of 60 shards of 100 rows are trained on; sqrt(4,500) is nearest to 64.
    assert (kept["batch_size"], anew["batch_size"]) == (32, 64)
    assert (kept["epochs"], anew["epochs"]) == (200, round(6000 * 64 / 4500))
    assert kept["learning_rate"] > anew["learning_rate"]


def test_numbers_that_the_study_states_do_not_depend_on_the_rows(tmp_path: Path) -> None:
    stated = {"epochs": 20, "batch_size": 256, "learning_rate": 1e-3}
    for shards in (1, 30):
        job = train_job(study(setting=stated), state_of(tmp_path, shards), None, tmp_path)
        assert {name: job.arguments()["setting"][name] for name in stated} == stated


@pytest.mark.parametrize(("retrain", "calibrated_on"), [("always", 4), ("never", 2), (1.5, 4), (2.5, 2)])
def test_an_imported_sae_is_calibrated_again_by_the_same_key(tmp_path: Path, retrain: Any, calibrated_on: int) -> None:
    (tmp_path / "checkpoint").write_text("weights")
    imported = {"name": "main", "checkpoint": str(tmp_path / "checkpoint"), "retrain": retrain}
    file = study().model_copy(update={"saes": [ImportedSAE.model_validate(imported)]})
    last = first_run(tmp_path, file)
    job = train_job(file, state_of(tmp_path, 4), last, tmp_path)
    assert shards_trained_on(job) == calibrated_on
    assert (job.lookup(tmp_path) is not None) == (calibrated_on == 2)
    described = ImportedSAE.model_fields["retrain"].description or ""
    assert described.startswith("import and calibrate again on more rows")
