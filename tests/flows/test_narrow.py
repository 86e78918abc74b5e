"""The jobs of a run of one stage for one model, one SAE or one seed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from planted_runs import planted, planted_run, small_study

from flows.config import Study
from flows.course import Course
from flows.jobs.job import STEPS, Given, Job
from flows.narrow import Narrow
from flows.upstream import upstream_of
from storage.record import Record
from storage.runs import Key, Run
from tasks.stage import Runtime

PAIR = Key("matching", "clip", "main", 0, other_seed=1)


def test_a_pair_of_seeds_is_a_job_of_both_seeds() -> None:
    assert str(PAIR) == "matching clip main seeds 0 and 1"
    assert [Narrow(seed=seed).includes(PAIR) for seed in (0, 1, 2)] == [True, True, False]
    assert not Narrow("other", seed=1).includes(PAIR)


@pytest.mark.parametrize("key", [PAIR, Key("measures", "clip", "main", 0), Key("analyze")])
def test_a_failure_keeps_the_key_of_its_job(tmp_path: Path, key: Key) -> None:
    record = Record(tmp_path, Run(study="s", config={}, started="", versions={}))
    assert record.fail("analyze", key, "cause", ValueError("cause")).key == key


def narrowed(study: Study, run: Run, store: Path, stage: str, narrow: Narrow) -> tuple[list[Job], Record]:
    """Plant what a narrowed run of a stage has to make. Returns its jobs, and the record with what it adopted."""
    state = upstream_of(study, store, run, stage, narrow=narrow)
    record = Record(store, Run(study=study.name, config={}, started="", versions={}))
    course = Course(Given(study, state, run, store), Runtime(store=store), record, None, narrow, [])
    made = []
    for step in STEPS[stage]:
        for job in course.jobs(step):
            state.add(job.entry(planted(store, job.stage.address(**job.arguments()), str(job.key))))
            made.append(job)
    return made, record


def test_a_consensus_sae_is_made_alone_from_the_seeds_in_the_store(tmp_path: Path) -> None:
    study = small_study(tmp_path, consensus=True)
    run = planted_run(study, tmp_path)
    missing = run.of("train", sae="main-consensus")[0]
    shutil.rmtree(tmp_path / missing.dataset.path)
    made, record = narrowed(study, run, tmp_path, "train", Narrow(sae="main-consensus"))
    assert [job.key for job in made] == [missing.key]
    assert [key.seed for key in record.entries if key.sae == "main"] == [0, 1]  # the run holds what it was made from


def test_the_tables_are_joined_when_the_last_part_is_made_alone(tmp_path: Path) -> None:
    other = {"name": "other", "width": 16, "k": 2, "seeds": [0, 1]}
    study = small_study(tmp_path)
    study = small_study(tmp_path, saes=[*study.model_dump(mode="json")["saes"], other])
    run = planted_run(study, tmp_path)
    for entry in (*run.of("measures", sae="other"), *run.of("analyze")):
        shutil.rmtree(tmp_path / entry.dataset.path)
    made, _ = narrowed(study, run, tmp_path, "analyze", Narrow(sae="other"))
    assert made[-1].key == Key("analyze")
    assert "main" not in {job.key.sae for job in made}


def test_the_tables_wait_while_a_part_outside_is_missing(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    run = planted_run(study, tmp_path)
    for entry in (*run.of("measures"), *run.of("analyze")):
        shutil.rmtree(tmp_path / entry.dataset.path)
    made, record = narrowed(study, run, tmp_path, "analyze", Narrow(seed=1))
    assert Key("measures", "own", "main", 1) in {job.key for job in made}
    assert Key("analyze") not in {job.key for job in made} | {*record.entries}
