"""Garbage collection on real stores deletes datasets of no run. It keeps datasets of finished and of current runs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import computed, write_study

from flows.cli import main
from flows.config import load_study
from flows.study import run_study
from storage.dataset import Address, Dataset, address, materialize
from storage.errors import BadInput
from storage.garbage import collect, find_garbage
from storage.lease import adopt, leases, running
from storage.record import write_run
from storage.runs import last_run, read_run, variants

pytestmark = pytest.mark.slow

HOLD = """
import sys
from pathlib import Path
from storage.dataset import address
from storage.lease import adopt, running
with running(Path(sys.argv[1]), "other"):
    assert adopt(Path(sys.argv[1]), address("saes", "1", {"seed": 5}))
    print("holding", flush=True)
    sys.stdin.readline()
"""


def orphan(store: Path, seed: int) -> Address:
    """Write a dataset to which no record of a run refers."""
    at = address("saes", "1", {"seed": seed})

    def body(out: Path) -> int:
        (out / "sae.safetensors").write_bytes(bytes(1000))
        return 1

    materialize(store, at, body)
    return at


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Path, Path]:
    """A store with three runs of a study: with the k of the study file, with another k, and with the first k again."""
    folder = tmp_path_factory.mktemp("grown")
    study, store = write_study(folder, images=400), folder / "store"
    store.mkdir()
    for change in ([], ["saes.main.k=4"], []):
        run_study(load_study(study, change), store, progress=False)
    return study, store


@pytest.fixture
def copy(grown: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    study, store = grown
    shutil.copytree(store, tmp_path / "store")
    return study, tmp_path / "store"


def test_each_variant_keeps_its_newest_complete_run_until_it_is_dropped(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    study, store = copy
    variant = "small:saes.main.k=4"
    # Runs 1 and 3 share all datasets. 17 datasets belong to run 2 alone: two SAEs, two exports, two dictionaries, two
    # maps, the parts of the analysis for both SAEs, their names and their seeds, the tables, the page and the explorer.
    assert main(["gc", "--store", str(store)]) == 0
    assert "would delete 0 folders" in capsys.readouterr().out
    assert main(["gc", "--store", str(store), "--drop", "small:other"]) == 2
    assert f"no such variant. Available: small:base, {variant}." in capsys.readouterr().err
    before = sorted(store.glob("*/*/dataset.json"))
    assert main(["gc", "--store", str(store), "--drop", variant]) == 0
    output = capsys.readouterr().out
    assert "would delete 18 folders and the records of 1 run, " in output
    assert "train own main of small, run 2" in output
    assert sorted(store.glob("*/*/dataset.json")) == before
    assert main(["gc", "--store", str(store), "--yes", "--drop", variant]) == 0
    deleted = {path.parent.parent.name for path in set(before) - set(store.glob("*/*/dataset.json"))}
    assert deleted == {
        "saes", "activations", "atoms", "measures", "names", "matchings", "partners", "tables", "reports", "layouts",
        "item_layouts", "explorers",
    }  # fmt: skip
    assert len(before) - len(list(store.glob("*/*/dataset.json"))) == 18
    assert variants(store, "small") == ["base"]
    assert computed(run_study(load_study(study), store, progress=False).run) == []
    assert main(["doctor", "--store", str(store)]) == 0


def test_the_runs_of_a_dropped_variant_are_named_though_it_shares_every_dataset(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, store = copy
    twin = write_run(store, last_run(store, "small").model_copy(update={"variant": "twin"}))
    record = store / "studies" / "small" / "runs" / str(twin.number)
    size = sum(path.stat().st_size for path in record.rglob("*")) / 1e6
    dropping = ["gc", "--store", str(store), "--drop", "small:twin"]
    assert main(dropping) == 0
    line, counts, hint = capsys.readouterr().out.splitlines()
    assert line.split(maxsplit=3) == [
        f"studies/small/runs/{twin.number}", f"{size:.1f}", "MB", f"record of run {twin.number} of small, variant twin",
    ]  # fmt: skip
    assert counts.startswith(f"would delete 0 folders and the records of 1 run, {size:.1f} MB; ")
    assert hint == "run it with --yes to delete them"
    assert record.exists()
    assert main([*dropping, "--yes"]) == 0
    deleted, counts = capsys.readouterr().out.splitlines()
    assert deleted == line
    assert counts.startswith("deleted 0 folders and the records of 1 run, ")
    assert variants(store, "small") == ["base", "saes.main.k=4"]


def test_half_made_leftovers_go_but_not_the_sources_nor_a_strangers_folder(copy: tuple[Path, Path]) -> None:
    _, store = copy
    known = last_run(store, "small").of("train", seed=0)[0].dataset.path
    (store / f"{known}.partial" / "image").mkdir(parents=True)
    (store / f"{known}.old").mkdir()
    (store / "saes" / ("f" * 20)).mkdir()  # named like a dataset, but without a manifest
    (store / "notes" / ("e" * 20)).mkdir(parents=True)
    garbage = find_garbage(store, keep=2)
    assert {item.path for item in garbage.items} == {f"{known}.partial", f"{known}.old"}
    collect(store, garbage)
    assert (store / known / "sae.safetensors").exists()
    assert not (store / f"{known}.partial").exists()
    assert (store / "saes" / ("f" * 20)).exists()
    assert list(store.glob("sources/*/manifest.json"))


def test_what_a_running_study_made_or_adopted_stays_and_the_kernel_frees_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adopted, idle = orphan(tmp_path, 5), orphan(tmp_path, 6)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    assert main(["gc", "--store", str(tmp_path), "--yes"]) == 0
    assert "1 more are kept for study other, which is being run: process" in capsys.readouterr().out
    assert not (tmp_path / idle.path).exists()  # no run used this dataset
    assert (tmp_path / adopted.path / "sae.safetensors").exists()
    process.kill()
    process.communicate()
    # The run was interrupted. Its finished datasets are kept until it is resumed, or until `gc --interrupted`.
    assert main(["gc", "--store", str(tmp_path), "--yes"]) == 0
    assert "which was cut short" in capsys.readouterr().out
    assert (tmp_path / adopted.path).exists()
    with running(tmp_path, "other"):
        assert [lease.live for lease in leases(tmp_path)] == [True]
        assert [item.path for item in find_garbage(tmp_path).in_use] == [adopted.path]
    assert leases(tmp_path) == []
    assert main(["gc", "--store", str(tmp_path), "--yes"]) == 0
    assert not (tmp_path / adopted.path).exists()


def test_interrupted_lets_go_what_a_dead_run_finished(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), running(tmp_path, "small"):
        at = orphan(tmp_path, 1)
        raise KeyboardInterrupt
    assert find_garbage(tmp_path).items == []
    garbage = find_garbage(tmp_path, interrupted=True)
    assert [item.path for item in garbage.items] == [at.path]
    assert len(collect(tmp_path, garbage)) == 1


def test_what_is_adopted_between_the_search_and_the_deletion_stays(tmp_path: Path) -> None:
    at = orphan(tmp_path, 1)
    garbage = find_garbage(tmp_path)
    assert len(garbage.items) == 1
    with running(tmp_path, "small"):
        assert isinstance(adopt(tmp_path, at), Dataset)
        assert collect(tmp_path, garbage) == []
    assert collect(tmp_path, garbage) == []  # the run that adopted the dataset has ended, and may refer to it now
    assert (tmp_path / at.path).exists()


def test_a_run_that_cannot_be_read_stops_the_collection(copy: tuple[Path, Path]) -> None:
    _, store = copy
    (store / "studies" / "small" / "runs" / "2" / "run.json").write_text('{"study": "small"}')
    with pytest.raises(BadInput, match=r"runs/2 is not a run of this version: config: Field required"):
        find_garbage(store)
    assert main(["gc", "--store", str(store), "--yes"]) == 2
    with pytest.raises(BadInput, match="--keep 0: at least 1, the newest complete run of each variant"):
        find_garbage(store, keep=0)


def test_a_newer_run_of_one_stage_does_not_make_the_complete_one_garbage(copy: tuple[Path, Path]) -> None:
    _, store = copy
    newest = last_run(store, "small")
    write_run(store, newest.model_copy(update={"entries": newest.of("acquire"), "ended": "partial"}))
    used = {entry.dataset.path for entry in read_run(store, "small", 3).entries}
    assert not used & {item.path for item in find_garbage(store).items}
