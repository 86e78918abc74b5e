"""The stage embed with a tiny CLIP: rows, failures, repeats, a real kill, the cast to bfloat16, and the recipe."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import CAPTIONS, build, hub_cache

import vlm
import vlm.pixels
from storage.catalog import create_views
from storage.checks import tell
from storage.dataset import Dataset
from storage.embeddings import read, read_attributes
from storage.errors import BadInput
from storage.listing import write_ledger
from storage.pairs import CAPTIONS as CAPTION_COLUMNS
from storage.pairs import IMAGES, read_failures
from storage.runs import Entry
from storage.sources import Dropped
from tasks.checks import check_embeddings
from tasks.embed import embed, load_encoders, model_identity
from tasks.stage import Runtime
from vlm.batches import Target, causes_of
from vlm.feed import Feed
from vlm.pictures import MAX_PIXELS
from vlm.precision import LOWEST_COSINE

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("clip", tmp_path_factory.mktemp("models") / "clip")


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((12, 12), Image.Resampling.NEAREST).save(out, "png")
    return out.getvalue()


def shard(store: Path, images: list[bytes | None], captions: list[str], digest: str = "d") -> Dataset:
    """Write a shard of pairs in the layout of acquire. Caption i belongs to image i % len(images)."""
    folder = store / "pairs" / digest
    folder.mkdir(parents=True)
    rows = [
        {"image_id": 2**20 + row, "source_key": str(row), "sha256": None if data is None else str(hash(data)),
         "error": None if data else "HTTP 404", "image": data}
        for row, data in enumerate(images)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, IMAGES), folder / "images.parquet", row_group_size=1024)
    caption_rows = [
        {"pair_id": 2**20 + row, "image_id": 2**20 + row % len(images), "caption": text, "source_key": str(row)}
        for row, text in enumerate(captions)
    ]
    pl.DataFrame(caption_rows, schema=CAPTION_COLUMNS).write_parquet(folder / "captions.parquet")
    return Dataset(path=f"pairs/{digest}", recipe=digest, digest=digest, rows=len(images))


def make(
    store: Path,
    pairs: Dataset,
    checkpoint: Path,
    dtype: str = "float32",
    max_pixels: int = MAX_PIXELS,
    **runtime: object,
) -> Dataset:
    identity, spec = model_identity(f"hf:local-dir:{checkpoint}", store)
    options = {"device": "cpu", "embed_batch_size": 32, "progress": False, **runtime}
    arguments = {"pairs": pairs, "model": identity, "dtype": dtype, "spec": spec, "max_pixels": max_pixels}
    return embed.make(Runtime(store=store, **options), **arguments)


def test_rows_follow_the_shard_and_failures_repeats_and_cuts_are_logged(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [picture(0), None, picture(1), b"<html>", picture(0), picture(2)[:60], picture(3)]
    captions = [*CAPTIONS, CAPTIONS[0], "wet grass " * 60, CAPTIONS[1]]
    with caplog.at_level(logging.INFO, "bridgescope"):
        dataset = make(tmp_path, shard(tmp_path, images, captions), checkpoint)
    vectors, attributes = read(tmp_path, dataset), read_attributes(tmp_path, dataset)
    encoder = vlm.load(f"hf:local-dir:{checkpoint}")
    for row in (0, 2, 4, 6):
        alone = encoder.encode_images([vlm.decode(images[row])])[0]
        np.testing.assert_allclose(vectors.image[row], alone, atol=2e-3)  # stored as float16
    np.testing.assert_allclose(vectors.text, encoder.encode_texts(captions), atol=2e-3)
    assert vectors.failed_rows == attributes["failed_rows"] == [1, 3, 5]
    assert np.array_equal(vectors.image[0], vectors.image[4])
    assert attributes["truncated_captions"] == 1
    assert attributes["model"] == encoder.identity
    assert dataset.rows == 7 - 3 + 9
    log = " ".join(record.getMessage() for record in caplog.records)
    assert "7 images, 9 captions, 10 rows forward" in log  # 3 distinct pictures, 7 distinct captions
    assert "3 images failed, 1 captions cut" in log


def failing(only: bytes | None, error: type[Exception]) -> Callable[..., object]:
    """A resizing that fails for every picture, or only for that of the bytes `only`."""
    bad = None if only is None else vlm.decode(only).tobytes()
    sound = vlm.pixels._by_methods

    def resize(*arguments: Image.Image) -> object:
        if bad is None or arguments[-1].tobytes() == bad:
            raise error("sinks")
        return sound(*arguments)

    return resize


@pytest.mark.parametrize(("error", "cause"), [(KeyError, "cannot be preprocessed"), (MemoryError, "out of memory")])
def test_an_acquired_image_that_is_not_embedded_has_its_cause(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
    cause: str,
) -> None:
    load_encoders.cache_clear()  # the steps of a model are looked up when it is loaded
    monkeypatch.setattr("vlm.pixels._by_methods", failing(picture(1), error))
    images = [picture(0), picture(1), None, picture(2)[:60], picture(1)]
    pairs = shard(tmp_path, images, CAPTIONS)
    dataset = make(tmp_path, pairs, checkpoint)
    attributes = read_attributes(tmp_path, dataset)
    assert attributes["failed_rows"] == [1, 2, 3, 4]  # row 2 was not acquired, so acquire knows its cause
    causes = [[row, cause] for row, cause, _ in attributes["failures"]]
    assert causes == [[1, cause], [3, "corrupt image"], [4, cause]]
    assert f"3 images were acquired but not embedded: 2 {cause}, 1 corrupt image" in caplog.text
    checks = check_embeddings.make(Runtime(store=tmp_path), pairs=pairs, embeddings=dataset)
    line, sound = tell(tmp_path, [checks])
    assert not sound
    assert f"3 images were acquired but not embedded: 2 {cause}, 1 corrupt image" in line
    ledger = write_ledger(tmp_path, [Dropped("gone", "HTTP 404", "")] * 2, read_failures(tmp_path, []))
    entries = [Entry(kind="ledger", dataset=ledger)]
    entries += [Entry(kind="checks", model=name, shard=1, dataset=checks) for name in ("one", "two")]
    with duckdb.connect() as con:
        create_views(con, tmp_path, entries, 0.0)
        rows = con.execute("SELECT source_key, shard, cause FROM ledger ORDER BY ALL").fetchall()
    lost = [("1", 1, cause), ("3", 1, "corrupt image"), ("4", 1, cause)]
    assert rows == [*lost, *[("gone", None, "HTTP 404")] * 2]


def test_an_error_of_the_machine_stays_one(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, shard(tmp_path, [picture(0)], CAPTIONS[:1]), checkpoint)
    monkeypatch.setattr("vlm.decoders.prepared", failing(None, MemoryError))
    with pytest.raises(MemoryError):
        make(tmp_path, shard(tmp_path, [picture(1)], CAPTIONS[:1], "e"), checkpoint)


def test_the_causes_of_rows_before_an_interruption_are_found_again(checkpoint: Path) -> None:
    images = [picture(0)[:60], picture(0), b"<html>", None, picture(0)[:60]]
    feed = Feed([vlm.load(f"hf:local-dir:{checkpoint}")])
    target = Target(0, 5, lambda rows: np.empty((0, 1)))
    found = causes_of(feed, target, lambda start: iter(images[start:]), np.array([0, 1, 2, 3, 0]), [0, 2, 3, 4])
    assert {row: cause for row, (cause, _) in found.items()} == {
        0: "corrupt image",
        2: "not an image",
        4: "corrupt image",
    }


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from storage.dataset import Dataset
from storage.embeddings import Writer
from test_embed import make
write = Writer.write
def dying(self, start, block):
    if start == 1024:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, start, block)
Writer.write = dying
make(Path(sys.argv[1]), Dataset(path="pairs/d", recipe="d", digest="d", rows=2100), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_kill_9_repeats_one_chunk_and_ends_with_the_same_bytes(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = [picture(seed) for seed in range(40)]
    images = [few[row % 40] if row % 50 else None for row in range(2100)]
    captions = [f"{CAPTIONS[row % 6]} {row % 700}" for row in range(2100)]
    killed_store, whole_store = tmp_path / "killed", tmp_path / "whole"
    pairs = shard(killed_store, images, captions)
    shard(whole_store, images, captions)
    command = [sys.executable, "-c", KILLED, str(killed_store), str(checkpoint), "", str(Path(__file__).parent)]
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    with caplog.at_level(logging.INFO, "bridgescope"):
        resumed = make(killed_store, pairs, checkpoint)
    # All 40 distinct pictures occur in the first chunk, which the killed process had written. So only captions are run.
    assert "2100 images, 2100 captions, 2100 rows forward" in caplog.text
    whole = make(whole_store, pairs, checkpoint)
    assert resumed.digest == whole.digest
    assert read_attributes(killed_store, resumed)["failed_rows"] == list(range(0, 2100, 50))


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.999), ("float16", 0.9999)])
def test_a_cast_that_fails_stops_the_stage_and_one_that_holds_is_logged(
    tmp_path: Path,
    checkpoint: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    least: float,
) -> None:
    pairs = shard(tmp_path, [picture(0), b"<html>", picture(1)], CAPTIONS)
    assert LOWEST_COSINE[dtype] == least
    monkeypatch.setitem(LOWEST_COSINE, dtype, 1.1)
    with pytest.raises(vlm.SpecError, match=rf'"{dtype}" an embedding of the first 256 items has cosine [01]\.'):
        make(tmp_path, pairs, checkpoint, dtype=dtype)
    assert not list((tmp_path / "embeddings").glob("*/dataset.json"))
    monkeypatch.setitem(LOWEST_COSINE, dtype, 0.9)
    with caplog.at_level(logging.INFO, "bridgescope"):
        dataset = make(tmp_path, pairs, checkpoint, dtype=dtype)
    assert f"in {dtype}: lowest cosine to float32 among the first items" in caplog.text
    assert read_attributes(tmp_path, dataset)["model"]["dtype"] == dtype
    in_float32 = make(tmp_path, pairs, checkpoint)
    assert in_float32.path != dataset.path
    attributes = read_attributes(tmp_path, in_float32)["model"]
    assert attributes["dtype"] == "float32"
    assert "tf32" not in attributes  # a CPU has none


def test_an_image_above_the_default_limit_is_embedded_if_the_study_allows_it(tmp_path: Path, checkpoint: Path) -> None:
    large = io.BytesIO()
    Image.new("1", (9500, 9500), 1).save(large, "png")  # 90,250,000 pixels; the default allows 89,478,485
    pairs = shard(tmp_path, [large.getvalue(), picture(1)], CAPTIONS[:2])
    refused = make(tmp_path, pairs, checkpoint)
    assert read_attributes(tmp_path, refused)["failed_rows"] == [0]
    assert "max_pixels" not in json.loads((tmp_path / refused.path / "dataset.json").read_text())["arguments"]
    allowed = make(tmp_path, pairs, checkpoint, max_pixels=100_000_000)
    assert read_attributes(tmp_path, allowed)["failed_rows"] == []
    assert allowed.path != refused.path


def test_a_checkpoint_that_was_replaced_is_loaded_anew(tmp_path: Path) -> None:
    folder = build("clip", tmp_path / "model")
    pairs = shard(tmp_path, [picture(0), picture(1)], CAPTIONS[:2])
    before = make(tmp_path, pairs, folder)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    state["visual_projection.weight"] = state["visual_projection.weight"].flip(0).contiguous()
    save_file(state, weights, {"format": "pt"})
    after = make(tmp_path, pairs, folder)
    alone = vlm.load(f"hf:local-dir:{folder}").encode_images([vlm.decode(picture(0))])[0]
    assert before.path != after.path
    np.testing.assert_allclose(read(tmp_path, after).image[0], alone, atol=2e-3)
    assert not np.allclose(read(tmp_path, before).image[0], alone, atol=2e-2)


def test_a_checkpoint_that_is_replaced_while_the_study_runs_is_not_embedded(tmp_path: Path) -> None:
    folder = build("clip", tmp_path / "model")
    pairs = shard(tmp_path, [picture(0)], CAPTIONS[:1])
    identity, spec = model_identity(f"hf:local-dir:{folder}", tmp_path)
    (folder / "notes.txt").write_text("other weights by now")
    with pytest.raises(BadInput, match="its files changed while the study was running"):
        embed.make(Runtime(store=tmp_path, device="cpu"), pairs=pairs, model=identity, dtype="float32", spec=spec)


def test_batch_size_changes_no_recipe_and_rows_by_rounding_only(tmp_path: Path, checkpoint: Path) -> None:
    pairs = shard(tmp_path, [picture(seed) for seed in range(40)], CAPTIONS * 4)
    one = make(tmp_path, pairs, checkpoint, embed_batch_size=1)
    before = np.asarray(zarr.open_array(tmp_path / one.path / "image", mode="r")[:])
    many = make(tmp_path, pairs, checkpoint, embed_batch_size="auto", force=True)
    after = np.asarray(zarr.open_array(tmp_path / many.path / "image", mode="r")[:])
    assert one.path == many.path
    np.testing.assert_allclose(before, after, atol=1e-3)


def test_a_recipe_hashes_the_bytes_of_a_folder_and_the_commit_of_a_repository(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_bytes, spec = model_identity(f"hf:local-dir:{checkpoint}", tmp_path)
    assert by_bytes.startswith("hf:local-dir:")
    assert str(checkpoint) not in by_bytes
    assert spec == f"hf:local-dir:{checkpoint}"
    cache = hub_cache(tmp_path, "openai/clip-vit-base-patch16", checkpoint, COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    pinned = f"hf:openai/clip-vit-base-patch16@{COMMIT}"
    assert model_identity("clip", tmp_path) == (pinned, pinned)
    assert json.loads((tmp_path / "sources" / "revisions.json").read_text()) == {"openai/clip-vit-base-patch16": COMMIT}
    # The branch moves; this store keeps the revision that it resolved first.
    (cache / "models--openai--clip-vit-base-patch16" / "refs" / "main").write_text("f" * 40)
    assert model_identity("hf:openai/clip-vit-base-patch16", tmp_path) == (pinned, pinned)
    # A torn memo counts as empty: the branch is resolved again, and a whole memo is written.
    (cache / "models--openai--clip-vit-base-patch16" / "refs" / "main").write_text(COMMIT)
    (tmp_path / "sources" / "revisions.json").write_text('{"openai/clip')
    assert model_identity("hf:openai/clip-vit-base-patch16", tmp_path) == (pinned, pinned)
    assert json.loads((tmp_path / "sources" / "revisions.json").read_text()) == {"openai/clip-vit-base-patch16": COMMIT}
    assert model_identity("open_clip:ViT-B-32/openai", tmp_path)[0] == "open_clip:ViT-B-32/openai"
    with pytest.raises(BadInput, match="no such folder"):
        model_identity("hf:local-dir:/nowhere", tmp_path)
