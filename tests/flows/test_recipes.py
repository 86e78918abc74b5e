"""The address (folder) of every dataset of a study. Code that changes an address makes all finished stores stale."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.config import Study, load_study
from flows.jobs.job import STEPS, Given, Job
from flows.stages import STAGES
from storage.dataset import Dataset
from storage.listing import SHARD_ROWS
from storage.runs import Entry, State

GOLDEN = Path(__file__).parent / "recipes.json"
ROOT = Path(__file__).parents[2]
VECTORS = """
name = "vectors"
[pairs]
source = "embeddings"
path = "own"
heldout = 0.25
[[models]]
name = "own"
spec = "embeddings:own"
[[saes]]
name = "main"
width = 16
k = 2
epochs = 20
batch_size = 256
learning_rate = 1e-3
seeds = [3]
[[saes]]
name = "nested"
architecture = "matryoshka"
width = 16
k = 2
epochs = 20
batch_size = 256
learning_rate = 1e-3
prefixes = [4, 16]
seeds = [0]
[[saes]]
name = "steered"
architecture = "jumprelu"
width = 16
k = 2
epochs = 20
batch_size = 256
learning_rate = 1e-3
penalty = 1e-2
seeds = [0]
[[saes]]
name = "theirs"
checkpoint = "sae.pt"
k = 2
[diets]
image_share = [0, "natural"]
halves = true
[frontier]
methods = ["topk", "pca"]
k = [2, 4]
[analyze]
split = "all"
min_pairs = 3
"""


def dataset(path: str, rows: int = 7) -> Dataset:
    """A handle of a dataset that is never read. Its digest is a hash of its path."""
    digest = hashlib.sha256(path.encode()).hexdigest()
    return Dataset(path=path, recipe=path.rpartition("/")[2], digest=digest, rows=rows)


#: Folders in which the first version of `adopt_vectors` put these datasets. The addresses of later datasets are pinned
#: with the digests of these folders.
FORMER = {
    "embed own shard 0": "embeddings/8ba057973010cea7a940",
    "embed own shard 1": "embeddings/40f5956ccd775522c11c",
}


def write_pairs(folder: Path, shard: int) -> None:
    """Write a shard of pairs with two of the four pairs of the vectors."""
    folder.mkdir(parents=True)
    rows = (2 * shard, 2 * shard + 1)
    ids = [shard * SHARD_ROWS + place for place in (0, 1)]
    images = {"image_id": ids, "source_key": [f"{row:012d}" for row in rows]}
    pl.DataFrame(images).write_parquet(folder / "images.parquet")
    pl.DataFrame({"image_id": ids, "caption": ["", ""]}).write_parquet(folder / "captions.parquet")


Order = Callable[[list[Job]], Iterable[Job]]  # in which the datasets of a step are made


def by_shard(jobs: list[Job]) -> Iterable[Job]:
    """As the stage embed makes datasets: all models of a shard, then the next shard."""
    return sorted(jobs, key=lambda job: job.key.shard or 0)


def jobs(study: Study, store: Path, order: Order = iter) -> Iterator[Job]:
    """Yield every job of a study with two shards, as if all datasets were made."""
    given = Given(study, State(), None, store)
    given.state.add(*(Entry(kind="scan", shard=shard, dataset=dataset(f"listings/{shard}")) for shard in (0, 1)))
    given.state.add(Entry(kind="ledger", dataset=dataset("ledgers/0")))
    for step in (step for stage in STAGES for step in STEPS[stage]):
        for job in order(list(step(given))):
            path = job.stage.address(**job.arguments()).path
            if job.key.kind == "acquire":
                write_pairs(store / path, job.key.shard or 0)
            given.state.add(job.entry(dataset(FORMER.get(str(job.key), path))))
            yield job


def addresses(study: Study, store: Path, order: Order = iter) -> dict[str, str]:
    """The folder of every dataset of a study with two shards, as if all datasets were made."""
    return {str(job.key): job.stage.address(**job.arguments()).path for job in jobs(study, store, order)}


def two_studies(tmp_path: Path) -> dict[str, Study]:
    """The demo study, and one of vectors."""
    own = tmp_path / "own"
    own.mkdir()
    for name in ("image", "text"):
        np.save(own / f"{name}.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "sae.pt").write_bytes(b"an SAE")
    (tmp_path / "vectors.toml").write_text(VECTORS)
    return {"demo": load_study(ROOT / "studies" / "demo.toml"), "vectors": load_study(tmp_path / "vectors.toml")}


def test_every_dataset_stays_where_finished_stores_have_it(tmp_path: Path) -> None:
    studies = two_studies(tmp_path)
    found = {name: addresses(study, tmp_path / f"store of {name}") for name, study in studies.items()}
    assert found == json.loads(GOLDEN.read_text())


def test_every_training_has_the_name_of_its_model_and_setting(tmp_path: Path) -> None:
    two_studies(tmp_path)
    study = load_study(tmp_path / "vectors.toml", ["consensus=true", "saes.main.seeds=[3, 4]"])
    found = {str(job.key): job.arguments() for job in jobs(study, tmp_path / "store")}
    labels = {key: inputs["label"] for key, inputs in found.items() if "label" in inputs}
    assert labels.keys() == {
        key for key in found if key == "frontier own" or (key.startswith("train") and "theirs" not in key)
    }
    assert labels["train own main seed 3"] == labels["train own main seed 4"] == "own, main"
    assert labels["train own main-half-a seed 3"] == "own, main-half-a"
    assert labels["train own main-consensus seed 0"] == "own, main-consensus"
    assert labels["frontier own"] == "own"


@pytest.mark.parametrize("order", [by_shard, reversed])
def test_a_dataset_has_one_address_in_whatever_order_others_are_made(tmp_path: Path, order: Order) -> None:
    """Or a run would find stale what the run before has made, whose shards ended in another order."""
    for name, study in two_studies(tmp_path).items():
        store = tmp_path / f"store of {name}"
        assert addresses(study, store, order) == addresses(study, tmp_path / f"another store of {name}")


def extended(text: str) -> tuple[str, list[str]]:
    """Add a key with a default to every class of settings in the text of a module. Returns (new text, new keys)."""
    lines, keys = text.split("\n"), []
    for cls in reversed([node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]):
        bases = {base.id for base in cls.bases if isinstance(base, ast.Name)}
        if any(base.endswith("Section") or base in ("Settings", "OwnParameters") for base in bases):
            keys.append(f"new_{cls.name.lower()}")
            after = cls.body[0].end_lineno  # last line of the docstring of the class
            assert after is not None
            lines.insert(after, f"\n    {keys[-1]}: int = 5\n")
    return "\n".join(lines), keys


EXTENDED = """
import importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("test_recipes", sys.argv[1])
recipes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipes)
import flows.config
folder = Path(sys.argv[2])
studies = recipes.two_studies(folder)
changed = recipes.load_study(folder / "vectors.toml", sys.argv[3:])
studies["changed"] = changed
found = {name: recipes.addresses(study, folder / f"store of {name}") for name, study in studies.items()}
print(json.dumps([flows.config.__file__, found, changed.model_dump(mode="json")]))
"""


def test_a_new_key_with_a_default_in_any_section_moves_no_address(tmp_path: Path) -> None:
    """A copy of the checkout gets a new key in every section, and one new key in the rules of the stage acquire."""
    copy, keys = tmp_path / "checkout", list[str]()
    for room in ("flows", "tasks", "analysis", "report", "vlm", "sae", "storage"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    settings = [copy / name for name in ("flows/config.py", "flows/sections.py", "sae/settings.py")]
    for path in (*settings, *(copy / "storage/sources").glob("*.py")):
        text, new = extended(path.read_text())
        path.write_text(text.replace("RULES = (", 'RULES = ("new_pairssection", '))
        keys += new
    assert {"new_study", "new_saesetting", "new_settings", "new_frontier", "new_analyze", "new_filessection"} <= set(
        keys
    )
    changes = ["new_study=6", "saes.main.new_settings=6", "saes.nested.new_saesetting=6", "pairs.new_pairssection=6"]
    command = [sys.executable, "-c", EXTENDED, __file__, str(tmp_path), *changes, "analyze.new_analyze=6"]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, found, dumped = json.loads(done.stdout)
    assert where.startswith(str(copy))
    golden = json.loads(GOLDEN.read_text())
    assert {name: found[name] for name in golden} == golden
    # A new key with a value other than its default changes the recipes of the jobs that read it, and no other recipe.
    moved = {key.partition(" seed")[0] for key, path in found["changed"].items() if golden["vectors"][key] != path}
    assert {"acquire shard 0", "train own main", "train own nested", "analyze", "report"} <= moved
    assert dumped["saes"][0]["new_settings"] == 6
    assert "new_saesetting" not in dumped["saes"][0]
