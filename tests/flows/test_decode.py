"""The key `decode` of a study: part of the recipe of embeddings when it is set, and refused where it cannot work."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tiny_models import CAPTIONS, build

from flows.cli import main
from flows.config import Study, load_study
from flows.jobs.embed import embeddings
from flows.jobs.job import Given
from flows.preflight import look
from storage.dataset import Dataset
from storage.embeddings import read
from storage.errors import BadInput
from storage.pairs import CAPTIONS as CAPTION_COLUMNS
from storage.pairs import IMAGES
from storage.runs import Entry, Run, State
from tasks.embed import embed, load_encoders, model_identity
from tasks.stage import Runtime

STUDY = """
name = "pictures"
{decode}
[pairs]
source = "folder"
path = "pictures"
[[models]]
name = "clip"
spec = "hf:local-dir:model"
[[saes]]
name = "main"
width = 16
k = 2
[runtime]
device = "cpu"
"""


def written(folder: Path, decode: str = 'decode = "nvjpeg"') -> Path:
    build("clip", folder / "model")
    (folder / "pictures").mkdir()
    file = folder / "study.toml"
    file.write_text(STUDY.format(decode=decode))
    return file


def embed_path(study: Study, store: Path) -> str:
    pairs = Dataset(path="pairs/a", recipe="a", digest="a", rows=1)
    given = Given(study, State(), None, store)
    given.state.add(Entry(kind="acquire", shard=0, dataset=pairs))
    (job,) = embeddings(given)
    return job.stage.address(**job.arguments()).path


def test_it_is_hashed_when_it_is_set_and_not_before(tmp_path: Path) -> None:
    file = written(tmp_path)
    default = embed_path(load_study(file, ["decode=pillow"]), tmp_path)
    file.write_text(STUDY.format(decode=""))
    assert embed_path(load_study(file), tmp_path) == default
    assert embed_path(load_study(file, ["decode=nvjpeg"]), tmp_path) != default


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["decode=turbo"], "decode"),
        (["pairs.source=embeddings"], 'decode is nvjpeg: source = "embeddings" has no pictures'),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_study(written(tmp_path), changes)


def test_without_a_gpu_the_study_ends_with_2_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    assert main(["run", str(written(tmp_path)), "--store", str(store)]) == 2
    said = capsys.readouterr().err
    assert 'decode = "nvjpeg" needs a GPU of CUDA, and the device is cpu: use decode = "pillow"' in said
    assert not list(store.glob("pairs/*"))


def test_a_study_that_is_embedded_goes_on_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(written(tmp_path))
    with pytest.raises(BadInput, match="nvjpeg"):
        look(study, tmp_path)
    entry = Entry(kind="embed", model="clip", shard=0, dataset=Dataset(path="e", recipe="e", digest="e", rows=1))
    run = Run(study="pictures", config={}, started="", versions={}, entries=[entry])
    monkeypatch.setattr("flows.preflight.last_run", lambda store, name: run)
    look(study, tmp_path)


def test_on_ray_the_machine_of_the_study_needs_no_gpu(tmp_path: Path) -> None:
    look(load_study(written(tmp_path), ["runtime.runner=ray"]), tmp_path)


def shard(store: Path) -> Dataset:
    folder = store / "pairs" / "a"
    folder.mkdir(parents=True)
    rows = []
    for row, form in enumerate(("jpeg", "png", "jpeg")):
        out = io.BytesIO()
        noise = np.random.default_rng(row).integers(0, 255, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((70, 50)).save(out, form)
        rows.append({"image_id": row, "source_key": str(row), "sha256": str(row), "image": out.getvalue()})
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows, IMAGES), folder / "images.parquet")
    captions = [{"pair_id": n, "image_id": n, "caption": CAPTIONS[n], "source_key": "a"} for n in range(3)]
    pl.DataFrame(captions, schema=CAPTION_COLUMNS).write_parquet(folder / "captions.parquet")
    return Dataset(path="pairs/a", recipe="a", digest="a", rows=3)


def test_a_shard_is_embedded_from_what_the_gpu_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def played(data: list[torch.Tensor]) -> list[torch.Tensor]:
        from torchvision.io import ImageReadMode, decode_jpeg

        given.append(len(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode_jpeg(data, ImageReadMode.RGB, "cpu")

    pairs = shard(tmp_path)
    identity, spec = model_identity(f"hf:local-dir:{build('clip', tmp_path / 'model')}", tmp_path)
    job = {"pairs": pairs, "model": identity, "spec": spec, "dtype": "float32"}
    runtime = Runtime(store=tmp_path, device="cpu", progress=False)
    load_encoders.cache_clear()
    with pytest.raises(ValueError, match="needs a GPU of CUDA") as refused:
        embed.make(runtime, **job, decode="nvjpeg")
    assert refused.value.exit_code == 2  # type: ignore[attr-defined]
    assert embed.lookup(tmp_path, **job, decode="nvjpeg") is None
    monkeypatch.setattr("vlm.feed.jpegs_on", lambda device: played)
    found, plain = embed.make(runtime, **job, decode="nvjpeg"), embed.make(runtime, **job)
    load_encoders.cache_clear()
    assert sum(given) == 2
    assert found.path != plain.path
    gpu, pillow = read(tmp_path, found), read(tmp_path, plain)
    cosines = (gpu.image * pillow.image).sum(1)
    assert cosines[1] == pytest.approx(1, abs=1e-3)  # the PNG
    assert cosines.min() > 0.9
    np.testing.assert_allclose(gpu.text, pillow.text, atol=1e-3)
