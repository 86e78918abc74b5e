"""A run shows only results of its own datasets. Failures are kept apart, and configurations do not mix."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests_support import random_sae, write_study

import tasks.train
from flows.cli import main
from flows.config import load_study
from flows.study import RunFailed, run_study
from sae.interchange import to_saelens
from storage.runs import Run, closure, last_run, newest_complete, numbers, read_run, variants
from tasks.fit import Fit, fit_in_process

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

NARROW = """
[[saes]]
name = "one"
checkpoint = "narrow"
[[saes]]
name = "two"
checkpoint = "narrow"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Path, Path]:
    """A study file and a store with one complete run of it."""
    folder = tmp_path_factory.mktemp("truth")
    study, store = write_study(folder, images=300), folder / "store"
    text = study.read_text().replace("epochs = 4", "epochs = 1").replace("seeds = [0, 1]", "seeds = [0]")
    text = text.replace("shard_size = 1500", "shard_size = 200")
    study.write_text(text)
    store.mkdir()
    run_study(load_study(study), store, progress=False)
    return study, store


@pytest.fixture
def copy(finished: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    study, store = finished
    shutil.copytree(store, tmp_path / "store")
    return study, tmp_path / "store"


def l0(store: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    """Query the k of the SAE. Returns (k, text on standard error)."""
    assert main(["sql", "select k from saes", "--format", "csv", "--store", str(store), *options]) == 0
    out, errors = capsys.readouterr()
    return out.split()[1], errors


def test_a_run_of_one_stage_shows_nothing_that_was_made_from_other_datasets(
    copy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, store = copy
    command = ["run", str(study), "--store", str(store), "--only", "train", "--set", "saes.main.k=5"]
    assert main(command) == 0
    out, errors = capsys.readouterr()
    assert out == ""  # no results: results of the first run do not belong to this run
    assert "export, analyze, report of run 2 is missing or stale" in errors
    run = last_run(store, "small")
    assert run is not None
    assert (run.ended, run.missing) == ("partial", ["export", "analyze", "report"])
    assert not any(run.of(kind) for kind in ("export", "analyze", "report", "explorer"))
    # The newest complete run answers the query, and standard error names this run.
    k, errors = l0(store, capsys)
    assert k == "3"
    assert errors.startswith("study small, run 1 of ")
    assert main(["sql", "from saes", "--store", str(store), "--run", "2"]) == 2
    assert "export, analyze, report of run 2 is missing or stale" in capsys.readouterr().err
    # A publication holds datasets of one complete run, or is refused.
    front = Path(__file__).parent
    publish = ["publish", str(study), "--store", str(store), "--to", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("explorer.built_site", lambda: front)
        assert main([*publish, "--run", "2"]) == 2
        assert "run 2" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert main(publish) == 0
    config = json.loads((tmp_path / "out" / "saes" / "own" / "main" / "0" / "config.json").read_text())
    assert config["k"] == 3
    # Running the later stages completes the run, and its results are results of the new SAE (k = 5).
    assert main(["run", str(study), "--store", str(store), "--set", "saes.main.k=5"]) == 0
    assert "(5)" in capsys.readouterr().out
    assert l0(store, capsys)[0] == "5"


def test_a_changed_configuration_is_a_variant_with_a_name_and_runs_of_its_own(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    study, store = copy
    changed = ["run", str(study), "--store", str(store), "--set", "saes.main.k=4"]
    assert main(changed) == 0
    capsys.readouterr()
    assert "has run with another configuration (run 1 of" in caplog.text
    assert "saes.main.k 3 -> 4. This run is the variant 'saes.main.k=4'" in caplog.text
    assert main([*changed[:-1], "saes.main.k=6", "--as", "wide", "--only", "train"]) == 0
    assert variants(store, "small") == ["base", "saes.main.k=4", "wide"]
    assert [l0(store, capsys, "--variant", name)[0] for name in ("base", "saes.main.k=4")] == ["3", "4"]
    assert main(["sql", "select 1", "--store", str(store), "--variant", "none"]) == 2
    assert "has no variant 'none'. Available: base, saes.main.k=4, wide." in capsys.readouterr().err
    # The command `status` with the file shows the configuration that the file holds.
    assert main(["status", str(study), "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert "run 1 of " in out
    assert "other variants: saes.main.k=4, wide" in out
    assert ", 0 stale, 0 missing" in out
    assert main(["gc", "--store", str(store)]) == 0
    assert "would delete 0 folders" in capsys.readouterr().out
    # A variant keeps its name when it runs again, and when the section `runtime` changes.
    assert main([*changed, "--set", "runtime.embed_batch_size=32"]) == 0
    assert variants(store, "small") == ["base", "saes.main.k=4", "wide"]


def test_another_study_file_of_the_same_name_is_a_variant_and_says_so(
    copy: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, store = copy
    other = write_study(tmp_path / "b", images=150)
    other.write_text(first.read_text())
    assert main(["run", str(other), "--store", str(store), "--only", "acquire"]) == 0
    capsys.readouterr()
    assert f"pairs.path {first.parent}/vectors -> {tmp_path}/b/vectors" in caplog.text
    assert main(["status", str(first), "--store", str(store)]) == 0
    assert ", 0 stale, 0 missing" in capsys.readouterr().out
    assert main(["gc", "--store", str(store), "--yes"]) == 0
    assert "deleted 0 folders" in capsys.readouterr().out

    # The first study has two shards and the other one has one. A third configuration of the other study, which has not
    # run, knows the one shard alone. Of pairs that no run has listed, nothing is known.
    embed = ["run", str(other), "--store", str(store), "--only", "embed", "--set"]
    assert main([*embed, "saes.main.k=4"]) == 0
    newest = last_run(store, "small")
    assert newest is not None
    assert [entry.dataset.rows for entry in newest.of("acquire")] == [150]
    capsys.readouterr()
    assert main([*embed, "pairs.shard_size=100"]) == 2
    assert "has no pairs yet" in capsys.readouterr().err
    assert main(["status", str(other), "--store", str(store), "--set", "pairs.shard_size=100"]) == 0
    assert "0 fresh" in capsys.readouterr().out


def test_a_job_that_fails_is_listed_and_stops_no_other(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, store = copy
    study = first.with_name("narrow.toml")
    study.write_text(first.read_text() + NARROW)
    to_saelens(random_sae(8, 0), first.with_name("narrow"))  # the model's rows have 12 dimensions
    with pytest.raises(RunFailed, match=r"2 jobs failed, the others ended:\ntrain own one seed 0: ") as failed:
        run_study(load_study(study), store, progress=False)
    assert failed.value.exit_code == 1
    run = last_run(store, "small")
    assert run is not None
    assert (run.ended, run.missing) == ("failed", ["train", "export", "analyze", "report"])
    assert [(f.stage, f.sae, f.seed) for f in run.failures] == [("train", "one", 0), ("train", "two", 0)]
    assert "Traceback" in (store / run.failures[0].traceback).read_text()
    assert {entry.sae for entry in run.of("export")} == {"main"}  # the setting that did not fail went on
    assert newest_complete(store, "small").number == 1
    assert main(["status", str(study), "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"missing  train own two seed 0 +failed in run 2: .* takes rows of 8 dimensions", out)
    assert "fresh    export own main seed 0 shard 0" in out
    # A stage can run for one setting alone when other settings have failed.
    only = ["run", str(study), "--store", str(store), "--only", "export"]
    assert main(only) == 2
    assert "train own one seed 0 is missing or stale" in capsys.readouterr().err
    assert main([*only, "--sae", "main"]) == 0
    capsys.readouterr()
    assert main([*only, "--sae", "none"]) == 2
    assert "--sae none: no such sae in study small. Available: main, one, two." in capsys.readouterr().err
    assert main(["run", str(study), "--store", str(store), "--seed", "1"]) == 2
    assert "--seed 1: is allowed only with --only STAGE" in capsys.readouterr().err


def test_bad_input_that_lets_no_job_of_a_stage_end_well_ends_with_2(tmp_path: Path) -> None:
    study, store = write_study(tmp_path, images=100), tmp_path / "store"
    store.mkdir()
    study.write_text(study.read_text().partition("[[saes]]")[0] + NARROW)
    to_saelens(random_sae(8, 0), tmp_path / "narrow")
    with pytest.raises(RunFailed) as failed:
        run_study(load_study(study), store, progress=False)
    assert failed.value.exit_code == 2
    assert failed.value.run.of("embed")


def test_a_folder_of_vectors_that_cannot_be_embedded_hides_no_other_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, store = write_study(tmp_path, images=100), tmp_path / "store"
    text = study.read_text().replace("epochs = 4", "epochs = 1").replace("seeds = [0, 1]", "seeds = [0]")
    study.write_text(text.replace("[[saes]]", '[[models]]\nname = "two"\nspec = "embeddings:two"\n[[saes]]'))
    shutil.copytree(tmp_path / "vectors", tmp_path / "two")
    rows = np.load(tmp_path / "two" / "image.npy")
    rows[7] = 0  # found when the rows are read, not when the folder is looked at
    np.save(tmp_path / "two" / "image.npy", rows)
    assert main(["run", str(study), "--store", str(store)]) == 2
    errors = capsys.readouterr().err
    assert "1 job failed, the others ended:\nembed two shard 0: " in errors
    run = last_run(store, "small")
    assert run is not None
    assert [entry.model for entry in run.of("export")] == ["own"]
    assert main(["status", str(study), "--store", str(store)]) == 0
    assert "fresh    export own main seed 0 shard 0" in capsys.readouterr().out
    assert main(["run", str(study), "--store", str(store), "--only", "export", "--model", "own"]) == 0


def test_a_run_whose_dataset_was_made_again_with_other_bytes_is_not_shown(
    copy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(job: Fit) -> int:
        return fit_in_process(job._replace(seed=job.seed + 100))

    study, store = copy
    monkeypatch.setattr(tasks.train, "fit_in_process", another)  # as another machine or library trains
    run_study(load_study(study), store, progress=False, only="train", force=True)
    monkeypatch.setattr("explorer.built_site", lambda: Path(__file__).parent)
    publish = ["publish", str(study), "--store", str(store), "--to", str(tmp_path / "out")]
    for more in ([], ["--run", "1"]):
        assert main([*publish, *more]) == 2
    assert "train own main seed 0 was made again since, with other bytes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["sql", "select * from concepts", "--store", str(store)]) == 2
    assert "export, analyze, report of run 2 is missing or stale" in capsys.readouterr().err


def test_the_page_of_the_newest_run_comes_back_after_that_of_another_was_shown(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    study, store = copy
    page = store / "report" / "small" / "index.html"
    first = page.read_text()
    assert main(["run", str(study), "--store", str(store), "--set", "saes.main.k=4"]) == 0
    assert page.read_text() != first
    assert main(["report", str(study), "--store", str(store), "--run", "1"]) == 0
    assert page.read_text() == first
    assert main(["run", str(study), "--store", str(store), "--set", "saes.main.k=4"]) == 0
    assert page.read_text() != first
    # A number is given once, also after the run that had it was dropped.
    assert main(["gc", "--store", str(store), "--yes", "--drop", "small:saes.main.k=4"]) == 0
    assert main(["run", str(study), "--store", str(store)]) == 0
    assert page.read_text() == first
    assert numbers(store, "small") == [1, 4]


def test_every_model_is_looked_at_before_work_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, store = write_study(tmp_path, images=100), tmp_path / "store"
    (tmp_path / "empty").mkdir()
    more = ""
    for name, spec in (("two", "embeddings:nowhere"), ("three", "embeddings:vectors"), ("four", "embeddings:empty")):
        more += f'[[models]]\nname = "{name}"\nspec = "{spec}"\n'
    study.write_text(study.read_text().replace("[[saes]]", more + "[[saes]]"))
    assert main(["run", str(study), "--store", str(store)]) == 2
    errors = capsys.readouterr().err
    assert "model two: " in errors
    assert "model four: " in errors
    assert "model own" not in errors
    assert not list(store.glob("*/*/dataset.json"))


def test_a_mixed_run_of_an_older_version_shows_its_closure_alone(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """Version 0.1 filled a run of one stage with datasets of the previous run."""
    _, store = finished
    run = read_run(store, "small", 1)
    other = run.of("train")[0].dataset.model_copy(update={"path": "saes/f", "digest": "f"})
    mixed = [entry.model_copy(update={"dataset": other}) if entry.kind == "train" else entry for entry in run.entries]
    of_no_sae = {"scan", "acquire", "ledger", "embed", "checks", "space", "item_layout"}
    assert {entry.kind for entry in closure(mixed)} == {*of_no_sae, "train"}
    fields = ("study", "number", "config", "started", "seconds", "versions")
    runs = tmp_path / "studies" / "small" / "runs"
    runs.mkdir(parents=True)

    def written(entries: list) -> Run:
        old = {**run.model_dump(mode="json", include=set(fields)), "entries": [e.model_dump() for e in entries]}
        (runs / "1.json").write_text(json.dumps(old))
        return read_run(tmp_path, "small", 1)

    assert written(run.entries).is_complete
    assert written(mixed).ended == "partial"
    assert {entry.kind for entry in written(mixed).entries}.isdisjoint({"export", "analyze", "report", "explorer"})
