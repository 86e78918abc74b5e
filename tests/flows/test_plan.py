"""`bridgescope plan` and `lineage`, on a study that runs once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tests_support import FinishedStudy, write_study

from flows.cli import main
from flows.config import Study, load_study
from flows.costs import Cost
from flows.narrow import Narrow
from flows.plan import Plan, plan, told
from flows.rates import seconds_of
from storage.errors import BadInput

FAST = ["saes.main.epochs=1"]


class Ran:
    """A study with its plan in an empty store, and the store after its run."""

    def __init__(self, finished: FinishedStudy, empty: Path) -> None:
        self.file, self.store, self.run = finished
        self.study: Study = load_study(self.file, FAST)
        self.before: Plan = plan(self.study, empty)
        self.files_before = [path.relative_to(empty) for path in empty.rglob("*") if path.parent.name != "sources"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, finished_study: FinishedStudy) -> Ran:
    return Ran(finished_study, tmp_path_factory.mktemp("plan"))


def counts(found: Plan) -> dict[str, tuple[int, int]]:
    """Counts of a plan: {kind of dataset: (number to make, number to adopt)}."""
    return {line.kind: (line.make, line.adopt) for line in found.lines}


def test_a_plan_lists_what_the_run_makes(ran: Ran) -> None:
    """The plan includes datasets whose inputs do not exist yet. A plan writes nothing but memos of the source."""
    assert set(ran.files_before) <= {Path("sources")}
    made = {kind: len(ran.run.of(kind)) for kind in counts(ran.before)}
    assert counts(ran.before) == {kind: (count, 0) for kind, count in made.items()}
    assert set(made) == {entry.kind for entry in ran.run.entries} - {"scan", "ledger"}
    assert made["export"] == 4  # 2 seeds, 2 shards


def test_a_plan_after_the_run_adopts_everything(ran: Ran) -> None:
    found = plan(ran.study, ran.store)
    assert counts(found) == {kind: (0, count) for kind, (count, _) in counts(ran.before).items()}
    assert (found.bytes, found.seconds) == (0, 0)


def test_bytes_are_those_of_the_store(ran: Ran) -> None:
    """A plan that reads the manifests of the store is right to 1 % in the bytes of embeddings, SAEs and activations."""
    forced = {line.kind: line for line in plan(ran.study, ran.store, force=True).lines}
    for kind in ("acquire", "embed", "train", "export"):
        held = [
            sum(json.loads((ran.store / e.dataset.path / "dataset.json").read_text())["files"].values())
            for e in ran.run.of(kind)
        ]
        assert forced[kind].known
        assert forced[kind].bytes == pytest.approx(sum(held), rel=0.01)
    first = {line.kind: line for line in ran.before.lines}
    for kind in ("embed", "train"):
        assert not first[kind].known
        assert first[kind].bytes == pytest.approx(forced[kind].bytes, rel=0.2)


def test_a_change_is_made_and_the_rest_adopted(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """For a third seed, one SAE and its activations are made. Pairs, embeddings and the other SAEs are adopted."""
    study = load_study(ran.file, [*FAST, "saes.main.seeds=[0,1,2]"])
    found = counts(plan(study, ran.store))
    assert (found["acquire"], found["embed"], found["train"], found["export"]) == ((0, 2), (0, 2), (1, 2), (2, 4))
    assert found["report"] == (1, 0)
    only = counts(plan(study, ran.store, only="train"))
    assert only == {"train": (1, 2)}
    assert counts(plan(study, ran.store, only="train", narrow=Narrow(seed=0))) == {"train": (0, 1)}
    more = ["--store", str(ran.store), "--set", FAST[0], "--set", "saes.main.seeds=[0,1,2]"]
    assert main(["run", str(ran.file), "--dry-run", "--only", "train", *more]) == 0
    said = capsys.readouterr().out
    assert "skipped: acquire, model, embed, export, analyze, report" in said
    assert "1 to make, 2 to adopt" in said
    assert main(["plan", str(ran.file), "--only", "export", *more]) == 2
    assert "train own main seed 2 is missing or stale: run --only train first" in capsys.readouterr().err


def test_a_plan_takes_the_dataset_and_the_variant_that_the_run_would(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    """With two epochs the SAEs are stale, so that a later stage is planned only with an SAE of an earlier run."""
    sae = ran.run.of("train", seed=0)[0].dataset
    asked = ["--store", str(ran.store), "--set", "saes.main.epochs=2", "--only", "export", "--seed", "0"]
    for command in (["run", str(ran.file), "--dry-run"], ["plan", str(ran.file)]):
        assert main([*command, *asked]) == 2
        assert "train own main seed 0 is missing or stale" in capsys.readouterr().err
        assert main([*command, *asked, "--upstream", sae.recipe]) == 0
        assert re.search(r"^0 to make, \d+ to adopt", capsys.readouterr().out, re.MULTILINE)
        for wrong, says in (
            (["--upstream", "f" * 20], "no run of 'small' made a dataset of that name"),
            (["--as", "my variant"], "--as my variant: letters, digits and"),
        ):
            assert main([*command, *asked, *wrong]) == 2
            assert says in capsys.readouterr().err
        whole = ["--store", str(ran.store), "--set", FAST[0], "--only", "export"]
        assert main([*command, *whole, "--upstream", ran.run.of("report")[0].dataset.recipe]) == 2
        assert "does not come before export" in capsys.readouterr().err
        assert main([*command, "--store", str(ran.store), "--upstream", sae.recipe]) == 2
        assert "allowed only with --only STAGE" in capsys.readouterr().err


def test_a_plan_makes_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is that of the nearest folder that exists."""
    file, store = write_study(tmp_path, images=300), tmp_path / "not" / "there"
    before, real, asked = sorted(tmp_path.rglob("*")), shutil.disk_usage, list[Path]()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or real(path))
    for command in (["plan", str(file)], ["run", str(file), "--dry-run"]):
        assert main([*command, "--store", str(store), "--set", FAST[0]]) == 0
        assert f"store {store}, which does not exist yet" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert asked == [tmp_path, tmp_path]


def test_new_pairs_are_planned(ran: Ran, tmp_path: Path) -> None:
    """Appended vectors give one more shard of pairs, which is embedded and exported. The SAEs become stale."""
    from tests_support import grow

    shutil.copytree(ran.file.parent / "vectors", tmp_path / "vectors")
    shutil.copy(ran.file, tmp_path / "small.toml")
    grow(tmp_path / "vectors")
    found = counts(plan(load_study(tmp_path / "small.toml", FAST), ran.store))
    assert found["train"] == (2, 0)
    assert found["acquire"][0] >= 1


def test_a_disk_that_is_too_small_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 million concepts of 12 dimensions take 1.5 GB per seed. The disk is said to have 1 GB free."""
    file, store = write_study(tmp_path, images=300), tmp_path / "store"
    store.mkdir()
    real = shutil.disk_usage(store)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=10**9))
    changes = ["saes.main.width=16000000"]
    with pytest.raises(BadInput, match=r"the run needs about [\d.]+ GB, .* and 1\.0+ GB are free"):
        plan(load_study(file, changes), store).check(store)
    assert main(["plan", str(file), "--store", str(store), "--set", changes[0]]) == 2
    assert "is too small" in capsys.readouterr().err
    plan(load_study(file), store).check(store)


def test_a_source_that_is_not_on_disk_is_planned_by_its_published_size(tmp_path: Path) -> None:
    """COCO's val2017 is planned as 5,000 images, without a download.

    A source of unknown size is refused, and the error says what to do.
    """
    text = (
        '\nname = "c"\n[pairs]\nsource = "coco"\nshard_size = 1024\n[[models]]\nname = "m"\nspec = "clip"\n[[saes]]\n'
    )
    (tmp_path / "c.toml").write_text(text + 'name = "main"\nwidth = 64\nk = 4\nepochs = 1\n')
    found = plan(load_study(tmp_path / "c.toml"), tmp_path, only="acquire")
    assert counts(found) == {"acquire": (5, 0)}
    assert found.bytes == pytest.approx(816e6 + 1070e6, rel=0.02)
    remote = text.replace('"coco"', '"webdataset"\nshards = "https://example.org/{000..009}.tar"')
    (tmp_path / "w.toml").write_text(remote + 'name = "main"\nwidth = 64\nk = 4\nepochs = 1\n')
    with pytest.raises(BadInput, match=r"the source can be listed only by downloading it from .*--only acquire"):
        plan(load_study(tmp_path / "w.toml"), tmp_path)


def test_lineage_leads_up_to_the_source_and_down_to_the_page(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    sae = ran.run.of("train", seed=1)[0].dataset
    assert main(["lineage", sae.recipe[:8], "--store", str(ran.store)]) == 0
    made, used = capsys.readouterr().out.split("used by:")
    for kind in ("train", "embed", "acquire", "scan"):
        for entry in ran.run.of(kind, **({"seed": 1} if kind == "train" else {})):
            assert entry.dataset.path in made
    assert "small: train own main seed 1" in made
    assert "source embeddings" in made
    assert "torch " in made  # versions of the libraries
    own, other = ran.run.of("export", seed=1), ran.run.of("export", seed=0)
    assert all(entry.dataset.path in used for entry in (*own, *ran.run.of("report")))
    assert not any(entry.dataset.path in used + made for entry in other)
    assert "runs that refer to it: small 1" in used


def test_lineage_of_a_file_and_of_the_published_page(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    sae, page = ran.run.of("train")[0].dataset, ran.run.of("report")[0].dataset
    for wanted, dataset in (
        (ran.store / sae.path / "config.json", sae),
        (ran.store / sae.path, sae),
        (sae.path, sae),
        (ran.store / "report" / "small" / "index.html", page),
    ):
        assert main(["lineage", str(wanted), "--store", str(ran.store), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["dataset"] == dataset.path


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("ffffffffffffffffffff", "no dataset of"),
        ("none.txt", "no dataset of"),
        (__file__, "is not in the store"),
        ("studies", "belongs to no dataset"),
    ],
)
def test_lineage_refuses_what_is_no_dataset(
    ran: Ran, wanted: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lineage", wanted, "--store", str(ran.store)]) == 2
    assert says in capsys.readouterr().err


def test_lineage_tells_missing_and_damaged_inputs(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    shutil.copytree(ran.store, store)
    sae, pairs, embedded = (ran.run.of(kind)[0].dataset for kind in ("train", "acquire", "embed"))
    shutil.rmtree(store / pairs.path)
    (store / embedded.path / "dataset.json").write_text('{"rows": ')
    assert main(["lineage", sae.recipe, "--store", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(pairs.path in line and "MISSING from the store" in line for line in lines)
    assert any(embedded.path in line and "DAMAGED: its manifest cannot be read" in line for line in lines)
    assert main(["lineage", pairs.recipe, "--store", str(store)]) == 0
    assert sae.path in capsys.readouterr().out.split("used by:")[1]


def test_a_plan_says_what_a_gpu_needs(ran: Ran, tmp_path: Path) -> None:
    """For vectors, what the SAEs take; for models, a batch too. Nothing where all is made or the device is a CPU."""
    changes = [*FAST, "saes.main.seeds=[0,1,2]", "runtime.device=cuda"]
    lines = told(plan(load_study(ran.file, changes), ran.store))
    assert any(
        re.fullmatch(r"memory of a GPU for own, estimated: an SAE of main 1\.1 GB, its 3 seeds together 1\.1 GB", line)
        for line in lines
    )
    assert plan(ran.study, ran.store).gpu == ()
    assert plan(load_study(ran.file, [*changes, "runtime.device=cpu"]), ran.store).gpu == ()
    model = '[[models]]\nname = "m"\nspec = "aimv2"\ndtype = "bfloat16"\n'
    sae = '[[saes]]\nname = "main"\nwidth = 8192\nk = 60\nepochs = 1\nbatch_size = 1024\n'
    (tmp_path / "c.toml").write_text('name = "c"\n[pairs]\nsource = "coco"\n' + model + sae)
    (line,) = plan(load_study(tmp_path / "c.toml", ["runtime.device=cuda"]), tmp_path).gpu
    # 435 million weights of 4 bytes; 256 x (150,528 pixels of 12 bytes and 15 x 256 x 1,024 numbers of 2 bytes)
    embedding = (435e6 * 4 + 256 * (150528 * 12 + 15 * 256 * 1024 * 2) + 2**30) / 1e9
    assert line.startswith(f"memory of a GPU for m, estimated: embedding 256 images at a time {embedding:.1f} GB, an")
    assert line.endswith(" GB")


def test_a_plan_says_what_all_models_of_a_pass_take_together(tmp_path: Path) -> None:
    """And nothing about a model whose name does not say its size, but that it is left out."""
    specs = {"a": "aimv2", "b": "hf:openai/clip-vit-base-patch32", "c": "open_clip:RN50/openai"}
    models = "".join(f'[[models]]\nname = "{name}"\nspec = "{spec}"\n' for name, spec in specs.items())
    sae = '[[saes]]\nname = "main"\nwidth = 64\nk = 4\n'
    (tmp_path / "c.toml").write_text(f'name = "c"\n[pairs]\nsource = "coco"\n{models}{sae}')
    *lines, last = plan(load_study(tmp_path / "c.toml", ["runtime.device=cuda"]), tmp_path).gpu
    assert ["embedding" in line for line in lines] == [True, True, False]
    # 435 and 151 million weights of 4 bytes, and the larger batch, that of aimv2: 256 x (150,528 pixels of 14 bytes and
    # 15 x 256 x 1,024 numbers of 4 bytes)
    both = ((435e6 + 151e6) * 4 + 256 * (150528 * 14 + 15 * 256 * 1024 * 4) + 2**30) / 1e9
    assert last == f"memory of a GPU for a pass with 3 models, estimated: {both:.1f} GB, besides c, of unknown size"
    alone = plan(load_study(tmp_path / "c.toml", ["runtime.device=cuda", "runtime.models_at_once=1"]), tmp_path).gpu
    assert list(alone) == lines


@pytest.mark.parametrize(
    ("changes", "driver", "told_of_gpu"),
    [
        ([], False, False),
        ([], True, True),
        (["runtime.device=cuda"], False, True),
        (["runtime.device=cpu"], True, False),
        (["runtime.runner=ray"], False, True),  # the machines of the cluster may have GPUs
    ],
)
def test_a_plan_is_about_a_gpu_only_where_one_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], driver: bool, told_of_gpu: bool
) -> None:
    monkeypatch.setattr("flows.gpu.DRIVER", (tmp_path / "nvidiactl",))
    if driver:
        (tmp_path / "nvidiactl").touch()
    model = '[[models]]\nname = "m"\nspec = "aimv2"\n'
    sae = '[[saes]]\nname = "main"\nwidth = 64\nk = 4\n'
    (tmp_path / "c.toml").write_text(f'name = "c"\n[pairs]\nsource = "coco"\n{model}{sae}')
    found = plan(load_study(tmp_path / "c.toml", changes), tmp_path)
    assert bool(found.gpu) == told_of_gpu
    assert any(line.startswith("memory of a GPU") for line in told(found)) == told_of_gpu


def test_seeds_on_a_gpu_are_not_counted_as_one_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds of 10 s take 10 s in three processes, and 30 s on a GPU, where 10 s are a seed's share of them."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    seeds = [Cost(1.0, 10.0)] * 3
    here, there = (seconds_of("train", seeds, gpu=gpu) for gpu in (False, True))
    assert there - here == pytest.approx(20)
    assert seconds_of("export", seeds, gpu=True) == seconds_of("export", seeds, gpu=False)
