"""Vectors of the user's own: every layout gives equal rows, and every contradiction is an error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr

from storage.errors import BadInput
from storage.sources.embeddings import EmbeddingsFolder
from storage.vectors import fingerprint, open_vectors

IMAGE = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
TEXT = IMAGE[::-1].copy()


def npy(path: Path) -> None:
    np.save(path / "image.npy", IMAGE)
    np.save(path / "text.npy", TEXT)


def clip_retrieval(path: Path) -> None:
    for name, array in (("img_emb", IMAGE), ("text_emb", TEXT)):
        (path / name).mkdir()
        for i in range(2):
            np.save(path / name / f"{name}_{i}.npy", array[2 * i : 2 * i + 2])
    (path / "metadata").mkdir()
    for i in range(2):
        rows = {
            "image_path": [f"{2 * i + j}.jpg" for j in range(2)],
            "caption": [f"caption {2 * i + j}" for j in range(2)],
        }
        pl.DataFrame(rows).write_parquet(path / "metadata" / f"metadata_{i}.parquet")


def as_zarr(path: Path) -> None:
    for name, array in (("image", IMAGE), ("text", TEXT)):
        zarr.create_array(path / name, data=array)


def parquet(path: Path) -> None:
    pl.DataFrame({"image_embedding": IMAGE.tolist(), "text_embedding": TEXT.tolist()}).write_parquet(
        path / "part_0.parquet"
    )


@pytest.mark.parametrize("layout", [npy, clip_retrieval, as_zarr, parquet])
def test_every_layout_gives_the_same_rows(tmp_path: Path, layout) -> None:
    layout(tmp_path)
    vectors = open_vectors(tmp_path)
    np.testing.assert_array_equal(vectors.image, IMAGE)
    np.testing.assert_array_equal(vectors.text, TEXT)
    assert vectors.image_row.tolist() == [0, 1, 2, 3]


def test_clip_retrieval_metadata_names_images_and_captions(tmp_path: Path) -> None:
    clip_retrieval(tmp_path)
    vectors = open_vectors(tmp_path)
    assert vectors.keys == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert vectors.captions[3] == "caption 3"


def test_several_captions_an_image_by_image_row(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", IMAGE[:2])
    np.save(tmp_path / "text.npy", TEXT)
    rows = {"image_row": [1, 0, 1, 1], "key": ["b", "a", "b", "b"], "caption": ["w", "x", "y", "z"]}
    pl.DataFrame(rows).write_parquet(tmp_path / "metadata.parquet")
    items = EmbeddingsFolder(tmp_path, tmp_path / "memo.json").list().items
    assert [(i.source_key, [c.text for c in i.captions]) for i in items] == [("a", ["x"]), ("b", ["w", "y", "z"])]
    assert [c.source_key for c in items[1].captions] == ["000000000000", "000000000002", "000000000003"]


@pytest.mark.parametrize(
    ("image", "text", "says"),
    [
        (IMAGE, TEXT[:, :2], "image rows have 3 dimensions, text rows 2"),
        (IMAGE.astype(int), TEXT, "must be floating point"),
        (IMAGE * np.nan, TEXT, "image row 0 is zero or not finite"),
        (IMAGE, TEXT * np.array([[1], [1], [0], [1]]), "text row 2 is zero or not finite"),
        (IMAGE[:2], TEXT, "image_row must lie in 0 to 1"),
    ],
)
def test_what_does_not_fit_is_bad_input(tmp_path: Path, image: np.ndarray, text: np.ndarray, says: str) -> None:
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "text.npy", text)
    with pytest.raises(BadInput, match=says):
        open_vectors(tmp_path)


def test_a_pickle_in_npy_clothing_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "text.npy", TEXT)
    with pytest.raises(BadInput, match=r"cannot be read as \.npy"):
        open_vectors(tmp_path)


def test_an_unknown_layout_and_a_missing_folder_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found no image"):
        open_vectors(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        open_vectors(tmp_path / "none")


def test_fingerprint_follows_bytes_not_place_or_time(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        npy(folder)
    memo = tmp_path / "memo.json"
    before = fingerprint(one, memo)
    assert before == fingerprint(two, memo) == fingerprint(one, memo)
    os.utime(one / "image.npy", (1, 1))
    assert fingerprint(one, memo) == before
    np.save(one / "image.npy", IMAGE + 1)
    assert fingerprint(one, memo) != before
