"""The address of every dataset that a study makes. A refactoring that changes one makes every finished store stale."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.config import Study, load_study
from flows.jobs import STEPS, Given
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
seeds = [3]
[[saes]]
name = "nested"
architecture = "matryoshka"
width = 16
k = 2
prefixes = [4, 16]
seeds = [0]
[[saes]]
name = "steered"
architecture = "jumprelu"
width = 16
k = 2
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


#: Where the first version of `adopt_vectors` put these datasets. What is made from them is pinned with their digests.
FORMER = {
    "embed own shard 0": "embeddings/8ba057973010cea7a940",
    "embed own shard 1": "embeddings/40f5956ccd775522c11c",
}


def write_pairs(folder: Path, shard: int) -> None:
    """Two of the four pairs of the vectors, in a shard of pairs."""
    folder.mkdir(parents=True)
    rows = (2 * shard, 2 * shard + 1)
    ids = [shard * SHARD_ROWS + place for place in (0, 1)]
    images = {"image_id": ids, "source_key": [f"{row:012d}" for row in rows]}
    pl.DataFrame(images).write_parquet(folder / "images.parquet")
    pl.DataFrame({"image_id": ids, "caption": ["", ""]}).write_parquet(folder / "captions.parquet")


def addresses(study: Study, store: Path) -> dict[str, str]:
    """The folder of every dataset of a study with two shards, as if each were made."""
    given = Given(study, State(), None, store)
    given.state.add(*(Entry(kind="scan", shard=shard, dataset=dataset(f"listings/{shard}")) for shard in (0, 1)))
    given.state.add(Entry(kind="ledger", dataset=dataset("ledgers/0")))
    found: dict[str, str] = {}
    for step in (step for stage in STAGES for step in STEPS[stage]):
        jobs = step(given)
        for job in jobs:
            key = str(job.key)
            found[key] = job.stage.address(**job.arguments()).path
            if job.key.kind == "acquire":
                write_pairs(store / found[key], job.key.shard or 0)
            given.state.add(job.entry(dataset(FORMER.get(key, found[key]))))
    return found


@pytest.fixture
def studies(tmp_path: Path) -> dict[str, Study]:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("image", "text"):
        np.save(own / f"{name}.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "sae.pt").write_bytes(b"an SAE")
    (tmp_path / "vectors.toml").write_text(VECTORS)
    return {"demo": load_study(ROOT / "studies" / "demo.toml"), "vectors": load_study(tmp_path / "vectors.toml")}


def test_every_dataset_stays_where_finished_stores_have_it(studies: dict[str, Study], tmp_path: Path) -> None:
    found = {name: addresses(study, tmp_path / name) for name, study in studies.items()}
    assert found == json.loads(GOLDEN.read_text())
