"""A user's vectors in the flow are joined by key, split into shards, checked, and kept when they grow."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests_support import grow

from flows.config import load_study
from flows.status import status
from flows.study import run_study
from storage import open_catalog
from storage.runs import Run

pytestmark = pytest.mark.usefixtures("prefect_server")
MODEL = '[[models]]\nname = "{name}"\nspec = "embeddings:{name}"\n'


def reordered(source: Path, target: Path, mixed: bool = False) -> None:
    """Write the vectors of a folder in another order of rows.

    With `mixed`, captions get the text vectors of other captions.
    """
    target.mkdir()
    rng = np.random.default_rng(5)
    image, text = (np.load(source / f"{name}.npy") for name in ("image", "text"))
    images, texts = rng.permutation(len(image)), rng.permutation(len(text))
    table = pl.read_parquet(source / "metadata.parquet")[texts]
    np.save(target / "image.npy", image[images])
    np.save(target / "text.npy", text[rng.permutation(len(text)) if mixed else texts])
    owner = np.argsort(images)[table["image_row"].to_numpy()]
    table.with_columns(image_row=pl.Series(owner)).write_parquet(target / "metadata.parquet")


def stage(study_file: Path, store: Path, name: str) -> Run:
    return run_study(load_study(study_file), store, only=name, progress=False).run


def embed(study_file: Path, store: Path) -> Run:
    stage(study_file, store, "acquire")
    return stage(study_file, store, "embed")


def test_vectors_in_another_order_are_those_of_the_same_pairs_and_growth_makes_new_shards_alone(
    study_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    own = tmp_path / "vectors"
    reordered(own, tmp_path / "other")
    reordered(own, tmp_path / "mixed", mixed=True)
    names = study_file.read_text() + "".join(MODEL.format(name=name) for name in ("other", "mixed"))
    study_file.write_text(names)
    log = logging.getLogger("bridgescope")
    log.addHandler(caplog.handler)  # once Prefect has set up its logging, records no longer reach the root logger
    try:
        with caplog.at_level(logging.INFO, "bridgescope"):
            run = embed(study_file, store)
    finally:
        log.removeHandler(caplog.handler)
    made = {name: [e.dataset.digest for e in run.of("embed", model=name)] for name in ("own", "other", "mixed")}
    assert made["own"] == made["other"]
    assert len({*made["own"], *made["mixed"]}) == 4
    told = {record.getMessage().partition(":")[0]: record for record in caplog.records}
    assert [told[name].levelname for name in made] == ["INFO", "INFO", "WARNING"]
    assert "4,400 text rows (norms 1 to 1, 0.0% duplicates)" in told["own"].getMessage()
    assert "do images and captions belong together?" in told["mixed"].getMessage()
    with open_catalog(store, run=run) as con:
        rows = con.execute(
            "SELECT model, count(*), sum(rows), min(matched > shuffled AND difference_low > 0) FROM embedding_checks "
            "WHERE modality = 'image' GROUP BY model ORDER BY model"
        ).fetchall()
    assert rows == [("mixed", 2, 2200, False), ("other", 2, 2200, True), ("own", 2, 2200, True)]

    for memo in ("fingerprints.json", "vectors.json"):  # files that a power cut left incomplete
        (store / "sources" / memo).write_text('{"')
    states = {
        row.key: row.state for row in status(load_study(study_file), store) if row.key.kind in ("embed", "checks")
    }
    assert set(states.values()) == {"fresh"}
    assert len(states) == 12

    for folder in (own, tmp_path / "other", tmp_path / "mixed"):
        grow(folder)
    grown = embed(study_file, store)
    made_now = {(e.kind, e.shard) for kind in ("embed", "checks") for e in grown.of(kind) if not e.cached}
    assert made_now == {("embed", 2), ("checks", 2)}
    assert [e.dataset for e in grown.of("embed", model="own")][:2] == [e.dataset for e in run.of("embed", model="own")]


def test_duplicates_are_dropped_by_steps_of_their_own_that_status_knows(study_file: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    study_file.write_text(study_file.read_text().replace("heldout = 0.25", 'heldout = 0.25\nduplicates = "drop"'))
    run = stage(study_file, store, "acquire")
    assert [(e.kind, e.shard) for e in run.entries if e.is_task] == [
        ("fetch", 0), ("fetch", 1), ("duplicates", None), ("acquire", 0), ("acquire", 1),
    ]  # fmt: skip
    assert [e.inputs for e in run.of("acquire")] == [[e.dataset] for e in run.of("fetch")]
    again = stage(study_file, store, "acquire")
    assert all(e.cached for e in again.entries if e.is_task)
    states = [row.state for row in status(load_study(study_file), store) if row.key.kind in ("fetch", "acquire")]
    assert states == ["fresh"] * 4
