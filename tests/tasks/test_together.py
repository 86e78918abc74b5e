"""Several models embed a shard in one pass: the datasets are those of their own jobs. A picture is decoded once."""

from __future__ import annotations

import io
import json
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import CAPTIONS, build

import vlm
import vlm.decoders
from storage.dataset import Dataset, manifest_of
from storage.pairs import CAPTIONS as CAPTION_COLUMNS
from storage.pairs import IMAGES
from tasks.embed import Wanted, embed, forget_models, load_encoder, load_encoders, model_identity
from tasks.stage import Runtime
from tasks.together import embed_together, on_devices, passes

FAMILIES = ("clip", "siglip", "naflex")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [build(family, folder / family) for family in FAMILIES]


def shard(store: Path, name: str, count: int = 6) -> Dataset:
    folder = store / "pairs" / name
    folder.mkdir(parents=True)
    rows = []
    for row in range(count):
        out = io.BytesIO()
        noise = np.random.default_rng(row).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(out, "png")
        rows.append({"image_id": row, "source_key": str(row), "sha256": str(row), "image": out.getvalue()})
    pq.write_table(pa.Table.from_pylist(rows, IMAGES), folder / "images.parquet")
    captions = [{"pair_id": n, "image_id": n, "caption": text, "source_key": "a"} for n, text in enumerate(CAPTIONS)]
    pl.DataFrame(captions, schema=CAPTION_COLUMNS).write_parquet(folder / "captions.parquet")
    return Dataset(path=f"pairs/{name}", recipe=name, digest=name, rows=count)


def jobs_of(store: Path, pairs: Dataset, folders: list[Path]) -> list[dict[str, Any]]:
    jobs = []
    for folder in folders:
        identity, spec = model_identity(f"hf:local-dir:{folder}", store)
        jobs.append({"pairs": pairs, "model": identity, "spec": spec, "dtype": "float32"})
    return jobs


def on_cpu(store: Path, **options: Any) -> Runtime:
    return Runtime(store=store, device="cpu", progress=False, embed_batch_size=4, **options)


def test_one_pass_makes_the_datasets_of_the_jobs(
    tmp_path: Path, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, alone = tmp_path / "together", tmp_path / "alone"
    pairs = shard(store, "a")
    shard(alone, "a")
    decoded: list[bytes] = []
    decode = vlm.decoders.decode
    with monkeypatch.context() as patched:
        patched.setattr("vlm.decoders.decode", lambda data, most: decoded.append(data) or decode(data, most))
        embed_together(jobs_of(store, pairs, checkpoints), on_cpu(store))
    assert len(decoded) == 6
    seconds = []
    for job in jobs_of(alone, pairs, checkpoints):
        found = embed.lookup(store, **job)
        assert found == embed.make(on_cpu(alone), **job)
        seconds.append(manifest_of(store, found)["seconds"])
    assert min(seconds) > 0
    assert max(seconds) < sum(seconds)  # the time of the pass is divided, not counted for each model
    embed_together(jobs_of(store, pairs, checkpoints), on_cpu(store))
    assert len(decoded) == 6  # everything is complete


def test_a_model_that_fails_is_left_to_its_own_job(tmp_path: Path, checkpoints: list[Path]) -> None:
    pairs = shard(tmp_path, "a")
    bad, good, gone = jobs_of(tmp_path, pairs, checkpoints)
    gone["spec"] = f"hf:local-dir:{tmp_path / 'gone'}"
    complete = embed.make(on_cpu(tmp_path), **bad)
    before = (tmp_path / complete.path / "dataset.json").stat().st_mtime_ns
    embed_together([bad, good, gone], on_cpu(tmp_path))
    assert (tmp_path / complete.path / "dataset.json").stat().st_mtime_ns == before
    assert embed.lookup(tmp_path, **good) is not None
    assert embed.lookup(tmp_path, **gone) is None
    with pytest.raises(vlm.SpecError, match="no such folder"):
        embed.make(on_cpu(tmp_path), **gone)


def test_an_embedding_that_is_not_finite_fails_its_model_alone(
    tmp_path: Path, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = shard(tmp_path, "a")
    jobs = jobs_of(tmp_path, pairs, checkpoints)
    sound = vlm.hf.HFEncoder.token_features
    width = vlm.load(jobs[1]["spec"]).dim

    def features(self: Any, inputs: Any) -> Any:
        found = sound(self, inputs)
        return found * float("nan") if found.shape[1] == width and self.family.model == "SiglipModel" else found

    load_encoders.cache_clear()
    monkeypatch.setattr("vlm.hf.HFEncoder.token_features", features)
    embed_together(jobs, on_cpu(tmp_path))
    assert [embed.lookup(tmp_path, **job) is not None for job in jobs] == [True, False, True]
    partial = tmp_path / f"{embed.address(**jobs[1]).path}.partial"
    assert json.loads((partial / "progress.json").read_text()) == {"image": 1}  # its job resumes after the images
    load_encoders.cache_clear()


def test_the_models_of_a_study_are_loaded_once_for_all_shards(tmp_path: Path, checkpoints: list[Path]) -> None:
    """The order of the datasets' addresses differs between shards; the order of the models does not."""
    shards = [shard(tmp_path, name, 2) for name in "abcd"]
    load_encoders.cache_clear()
    with patch("vlm.load", wraps=vlm.load) as load:
        for pairs in shards:
            embed_together(jobs_of(tmp_path, pairs, checkpoints), on_cpu(tmp_path))
    assert load.call_count == len(checkpoints)
    load_encoders.cache_clear()


@pytest.mark.slow
def test_the_models_of_a_pass_are_freed_before_those_of_the_next_are_loaded(
    tmp_path: Path, checkpoints: list[Path]
) -> None:
    """Whether the next loads for a pass or for texts. Two groups at once may be more than a GPU has room for."""
    pairs = shard(tmp_path, "a", 2)
    jobs = jobs_of(tmp_path, pairs, checkpoints)
    texts = Wanted(jobs[0]["model"], jobs[0]["spec"], "float32")
    loaded: list[weakref.ref[Any]] = []
    sound = vlm.load

    def load(*arguments: Any, **options: Any) -> Any:
        assert [encoder() for encoder in loaded] == [None] * len(loaded)
        found = sound(*arguments, **options)
        loaded.append(weakref.ref(found))
        return found

    forget_models()
    with patch("vlm.load", load):
        for each in jobs[:2]:
            embed_together([each], on_cpu(tmp_path))
            assert embed.lookup(tmp_path, **each) is not None  # its pass did not fail
            assert loaded[-1]() is not None
        load_encoder(texts, "cpu", tmp_path)
    assert len(loaded) == 3
    forget_models()


def test_a_model_with_two_names_is_embedded_once(tmp_path: Path, checkpoints: list[Path]) -> None:
    """Both jobs have one address, whose lock a process can hold once."""
    (job,) = jobs_of(tmp_path, shard(tmp_path, "a"), checkpoints[:1])
    embed_together([job, {**job}], on_cpu(tmp_path))
    assert embed.lookup(tmp_path, **job) is not None


@given(
    shards=st.integers(1, 5), models=st.integers(1, 6), at_once=st.none() | st.integers(1, 4), devices=st.integers(1, 8)
)
def test_passes_hold_every_job_once_and_one_shard_each(shards: int, models: int, at_once, devices: int) -> None:
    jobs = [
        {"pairs": Dataset(path=f"pairs/{n}", recipe="r", digest="d", rows=1), "model": str(m)}
        for m in range(models)
        for n in range(shards)
    ]
    found = passes(jobs, at_once, devices)
    assert sorted(map(str, jobs)) == sorted(str(job) for each in found for job in each)
    assert all(len({job["pairs"].path for job in each}) == 1 for each in found)
    assert all(len(each) <= (at_once or models) for each in found)
    if at_once is None and shards >= devices:
        assert len(found) == shards
    if devices >= shards * models:
        assert all(len(each) == 1 for each in found)


@pytest.mark.slow
def test_several_gpus_are_several_processes(
    tmp_path: Path, checkpoints: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [shard(tmp_path, "a"), shard(tmp_path, "b", 5)]
    found = [jobs_of(tmp_path, each, checkpoints[:2]) for each in pairs]
    with caplog.at_level("INFO", "bridgescope"), on_devices(["cpu", "cpu"], on_cpu(tmp_path)) as submit:
        for future in [submit(jobs) for jobs in found]:
            future.result()
    assert all(embed.lookup(tmp_path, **job) is not None for jobs in found for job in jobs)
    assert {record.getMessage()[:17] for record in caplog.records} >= {"shard 0: 6 images", "shard 0: 5 images"}
