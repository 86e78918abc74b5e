"""The user's own vectors: every layout gives the same rows, and every contradiction is an error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr

from storage.errors import BadInput
from storage.fingerprints import stamp
from storage.sources.embeddings import EmbeddingsFolder
from storage.vectors import Parts, fingerprint, open_vectors, unit

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
    items = EmbeddingsFolder(tmp_path, {}).list().items
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
    with pytest.raises(BadInput, match=r"cannot be read as \.npy") as refused:
        open_vectors(tmp_path)
    assert "allow_pickle" not in str(refused.value)
    (tmp_path / "image.npy").write_bytes(b"<html>Not found</html>")
    with pytest.raises(BadInput, match=r"it is no \.npy file, or holds Python objects, which are not read"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("form", [2, 3])
def test_a_zarr_array_without_one_of_its_chunks_is_refused(tmp_path: Path, form: int) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    for name in ("image", "text"):
        made = zarr.create_array(tmp_path / name, shape=rows.shape, chunks=(10, 2), dtype="float32", zarr_format=form)
        made[:] = rows
    np.testing.assert_array_equal(open_vectors(tmp_path).image[:], rows)
    (tmp_path / "image" / ("0.1" if form == 2 else "c/0/1")).unlink()
    with pytest.raises(BadInput, match=r"image: 1 of its 6 chunks are not there, which would be read as 0\.0"):
        open_vectors(tmp_path)


def test_a_broken_link_is_no_missing_file(tmp_path: Path) -> None:
    for name, rows in (("image.npy", TEXT), ("text.npy", TEXT)):
        np.save(tmp_path / name, rows)
    (tmp_path / "README.md").symlink_to(tmp_path / "gone.md")  # nothing that is read
    assert len(open_vectors(tmp_path).image) == len(TEXT)
    for name in ("metadata.parquet", "metadata", "more.npz"):
        (tmp_path / name).symlink_to(tmp_path / "gone")
        with pytest.raises(BadInput, match=rf"{name}: is a broken link: .*gone is not there"):
            open_vectors(tmp_path)
        (tmp_path / name).unlink()


def test_vectors_in_two_layouts_are_refused(tmp_path: Path) -> None:
    for name in ("image", "text"):
        np.save(tmp_path / f"{name}.npy", TEXT)
        zarr.save(tmp_path / "zarr" / name, TEXT)
        np.savez(tmp_path / f"{name}.npz", TEXT)
        part = name.replace("image", "img")
        (tmp_path / f"{part}_emb").mkdir()
        np.save(tmp_path / f"{part}_emb" / f"{part}_emb_0.npy", TEXT)
    with pytest.raises(BadInput, match=r"image\.npy and image\.npz both hold vectors: keep one of them"):
        open_vectors(tmp_path)
    (tmp_path / "image.npy").unlink()
    with pytest.raises(BadInput, match=r"image\.npz and img_emb both hold vectors"):
        open_vectors(tmp_path)
    np.save(tmp_path / "image.npy", TEXT)
    for name in ("image.npz", "text.npz"):
        (tmp_path / name).rename(tmp_path / f"old {name}")
    shutil.rmtree(tmp_path / "img_emb")
    (tmp_path / "img_emb").mkdir()  # holds no vectors
    (tmp_path / "old image.npz").unlink()
    assert len(open_vectors(tmp_path).image) == len(TEXT)  # the other archive has one array
    np.savez(tmp_path / "old text.npz", images=TEXT, texts=TEXT)
    with pytest.raises(BadInput, match=r"image\.npy and old text\.npz both hold vectors"):
        open_vectors(tmp_path)
    for name in ("image.npy", "old text.npz"):
        (tmp_path / name).unlink()
    (tmp_path / "img_emb").rmdir()
    for name in ("image", "text"):
        np.savez(tmp_path / f"{name}.npz", TEXT)
    assert len(open_vectors(tmp_path).image) == len(TEXT)
    for name in ("image", "text"):
        (tmp_path / "zarr" / name).rename(tmp_path / name)
    with pytest.raises(BadInput, match=r"image \(Zarr\) and image\.npz both hold vectors"):
        open_vectors(tmp_path)


def test_an_unknown_layout_and_a_missing_folder_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found no image"):
        open_vectors(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        open_vectors(tmp_path / "none")


def metadata(path: Path, file: str = "metadata.parquet", **columns: object) -> None:
    (path / file).parent.mkdir(exist_ok=True)
    pl.DataFrame(columns, strict=False).write_parquet(path / file)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image_row": [0, 1, None, 3]}, "row 2: `image_row` is empty"),
        ({"image_row": [0, 1, None, 3], "key": list("pqrs")}, "row 2: `image_row` is empty"),
        ({"image_row": [0.0, 0.9, 1.5, 2.9]}, r"row 1: `image_row` is 0\.9: a whole number is needed"),
        ({"image_row": [0.0, 1.0, float("nan"), 3.0]}, "row 2: `image_row` is empty"),
        ({"image_row": [0.0, 1.0, float("inf"), 3.0]}, "row 2: `image_row` is inf"),
        ({"image_row": list("0123")}, "`image_row` holds text: whole numbers are needed"),
        ({"image_row": [True, False, True, False]}, "`image_row` holds true and false: whole numbers are needed"),
        ({"image_row": [None] * 4}, "row 0: `image_row` is empty"),
        ({"image_row": [[0], [1], [2], [3]]}, r"`image_row` holds values of the type List"),
        ({"image_row": [0, 1, 2, 4]}, "row 3: image_row must lie in 0 to 3, is 4"),
        ({"image_row": [0, -1, 2, 3]}, "row 1: image_row must lie in 0 to 3, is -1"),
        ({"image_row": [0, 1, 2]}, "4 text rows, but the metadata has 3"),
        ({"key": [None, "a", "b", "c"]}, "row 0: `key` is empty"),
        ({"key": ["x", "", "b", "c"]}, "row 1: `key` is empty"),
        ({"key": [1.0, 2.0, 3.0, 4.0]}, "`key` holds floating point numbers: text is needed"),
        ({"key": ["x", "y", "x", "z"]}, "equal values for two images: image rows 0 and 2 are both 'x'"),
        ({"image_row": [0, 0, 1, 1], "key": ["x", "y", "z", "z"]}, "row 1: key is 'y', but image row 0 has 'x'"),
        ({"image_row": [0, 0, 1, 1], "group": ["g", "g", "g", "h"]}, "row 3: group is 'h', but image row 1 has 'g'"),
        ({"caption": [1, 2, 3, 4]}, "`caption` holds whole numbers: text is needed"),
        ({"caption": [["a"], None, ["a", "b"], []]}, "row 2: `caption` holds 2 texts: a text vector belongs to one"),
        ({"caption": [[1], [2], [3], [4]]}, "`caption` holds values of the type List"),
        ({"caption": [{"raw": "a"}] * 4}, "`caption` holds values of the type Struct"),
    ],
)
def test_metadata_that_is_not_as_it_must_be_is_named_with_its_row(tmp_path: Path, columns: dict, says: str) -> None:
    npy(tmp_path)
    metadata(tmp_path, **columns)
    with pytest.raises(BadInput, match=says):
        open_vectors(tmp_path)


@pytest.mark.parametrize(
    "rows", [[3, 2, 1, 0], [3.0, 2.0, 1.0, 0.0], pl.Series([3, 2, 1, 0], dtype=pl.UInt8), np.array([3, 2, 1, 0])]
)
def test_whole_numbers_of_any_type_are_rows(tmp_path: Path, rows: object) -> None:
    npy(tmp_path)
    metadata(tmp_path, image_row=rows, key=[30, 20, 10, 0], caption=["d", None, "b", "a"])
    vectors = open_vectors(tmp_path)
    assert vectors.image_row.tolist() == [3, 2, 1, 0]
    assert vectors.keys == ["0", "10", "20", "30"]
    assert vectors.captions == ["d", "", "b", "a"]


def test_metadata_in_parts_of_which_one_differs_is_named(tmp_path: Path) -> None:
    npy(tmp_path)
    metadata(tmp_path, "metadata/part_0.parquet", image_row=[0, 1], key=["a", "b"])
    metadata(tmp_path, "metadata/part_1.parquet", image_row=[2.0, None], key=["c", "d"])
    with pytest.raises(BadInput, match=r"part_1\.parquet: row 1: `image_row` is empty"):
        open_vectors(tmp_path)
    metadata(tmp_path, "metadata/part_1.parquet", image_row=[2, 9], key=["c", "d"])
    with pytest.raises(BadInput, match=r"part_1\.parquet: row 1: image_row must lie in 0 to 3, is 9"):
        open_vectors(tmp_path)
    metadata(tmp_path, "metadata/part_1.parquet", image_row=[2, 3])
    with pytest.raises(BadInput, match=r"part_1\.parquet: has no column for `key`, which part_0\.parquet has"):
        open_vectors(tmp_path)
    (tmp_path / "metadata" / "part_1.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(BadInput, match=r"part_1\.parquet: cannot be read as Parquet"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("folder", ["img_emb", "text_emb", "metadata"])
def test_a_missing_part_of_clip_retrieval_is_named(tmp_path: Path, folder: str) -> None:
    clip_retrieval(tmp_path)
    next((tmp_path / folder).glob("*_1.*")).unlink()
    with pytest.raises(
        BadInput, match=f"{folder}_1 is missing, the part 1 that .* has .*: parts must have the same numbers"
    ):
        open_vectors(tmp_path)


def test_parts_of_unlike_rows_or_dimensions_are_named(tmp_path: Path) -> None:
    clip_retrieval(tmp_path)
    np.save(tmp_path / "text_emb" / "text_emb_0.npy", TEXT[:1])
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", TEXT[1:])  # the number of rows in all parts stays the same
    with pytest.raises(BadInput, match="part 0: 1 text rows, but the metadata has 2"):
        open_vectors(tmp_path)
    shutil.rmtree(tmp_path / "metadata")
    with pytest.raises(BadInput, match="part 0: 2 image rows and 1 text rows: a column image_row must say"):
        open_vectors(tmp_path)
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", TEXT[1:, :2])
    with pytest.raises(BadInput, match=r"text_emb_1\.npy: its shape is \(3, 2\), that of text_emb_0\.npy \(1, 3\)"):
        open_vectors(tmp_path)
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", np.float32(1))
    with pytest.raises(BadInput, match=r"text_emb_1\.npy: its shape is \(\)"):
        open_vectors(tmp_path)
    np.save(tmp_path / "text_emb" / "more_01.npy", TEXT)
    with pytest.raises(BadInput, match=r"more_01\.npy and text_emb_1\.npy have the same number"):
        open_vectors(tmp_path)


def test_fewer_captions_than_images_need_image_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", IMAGE)
    np.save(tmp_path / "text.npy", TEXT[:3])
    with pytest.raises(BadInput, match="4 image rows and 3 text rows: a column image_row must say"):
        open_vectors(tmp_path)
    metadata(tmp_path, image_row=[3, 1, 0])
    vectors = open_vectors(tmp_path)
    assert vectors.image_row.tolist() == [3, 1, 0]
    assert vectors.keys == [f"{row:012d}" for row in range(4)]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ([None, [1.0, 2.0]], "row 0: `image_embedding` is empty"),
        ([[1.0, 2.0], [1.0]], "row 1: `image_embedding` has 1 numbers, row 0 has 2"),
        ([[1.0, 2.0], []], "row 1: `image_embedding` is empty"),
        ([[1.0, 2.0], [None, 2.0]], "row 1: `image_embedding` holds an empty number"),
        ([[1.0, 2.0], [0.0, 0.0]], "image row 1 is zero or not finite"),
        ([["a", "b"], ["c", "d"]], "`image_embedding` holds List"),
        (["a", "b"], "`image_embedding` holds String"),
        ([1.0, 2.0], "`image_embedding` holds Float64"),
        ([[1.0, 2.0, 3.0]] * 2, "image rows have 3 dimensions, text rows 2"),
    ],
)
def test_a_column_of_vectors_that_is_none_is_named_with_its_row(tmp_path: Path, image: list, says: str) -> None:
    table = {"image_embedding": image, "text_embedding": [[1.0, 2.0]] * 2}
    pl.DataFrame(table, strict=False).write_parquet(tmp_path / "part.parquet")
    with pytest.raises(BadInput, match=says):
        open_vectors(tmp_path)


def test_a_table_without_a_column_and_one_without_rows_are_named(tmp_path: Path) -> None:
    parquet(tmp_path)
    pl.DataFrame({"image_embedding": [[1.0, 2.0, 3.0]]}).write_parquet(tmp_path / "part_1.parquet")
    with pytest.raises(BadInput, match=r"part_1\.parquet: has no column text_embedding, which part_0\.parquet has"):
        open_vectors(tmp_path)
    (tmp_path / "part_1.parquet").unlink()
    pl.read_parquet(tmp_path / "part_0.parquet").head(0).write_parquet(tmp_path / "part_0.parquet")
    with pytest.raises(BadInput, match=r"part_0\.parquet: has no rows, as all tables of vectors here"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"text"])
def test_a_file_that_is_no_npy_is_named(tmp_path: Path, content: bytes) -> None:
    npy(tmp_path)
    (tmp_path / "text.npy").write_bytes(content)
    with pytest.raises(BadInput, match=r"text\.npy: cannot be read as \.npy"):
        open_vectors(tmp_path)


def test_half_a_pair_of_arrays_is_named(tmp_path: Path) -> None:
    as_zarr(tmp_path)
    shutil.rmtree(tmp_path / "text")
    with pytest.raises(BadInput, match="text: cannot be read as a Zarr array"):
        open_vectors(tmp_path)
    shutil.rmtree(tmp_path / "image")
    np.save(tmp_path / "image.npy", IMAGE)
    with pytest.raises(BadInput, match=r"text\.npy: cannot be read"):
        open_vectors(tmp_path)


@pytest.mark.parametrize(
    ("size", "kind"), [(1e30, "<f4"), (1e-23, "<f4"), (1e-40, "<f4"), (1e300, "<f8"), (6e4, "<f2")]
)
def test_finite_rows_of_any_size_are_accepted_and_have_unit_norm(tmp_path: Path, size: float, kind: str) -> None:
    for name in ("image", "text"):
        np.save(tmp_path / f"{name}.npy", np.array([[3, -4], [0, 1]], kind) / 4 * np.array(size, kind))
    rows = unit(open_vectors(tmp_path).image[:])
    np.testing.assert_allclose(rows, [[0.6, -0.8], [0, 1]], rtol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


def test_parts_are_read_as_one_array(tmp_path: Path) -> None:
    arrays = [IMAGE[:1], IMAGE[1:1], IMAGE[1:4].astype(np.float64)]
    files = [tmp_path / f"{n}" for n in range(3)]
    for file in files:
        file.write_bytes(file.name.encode())
    parts = Parts(files, arrays)
    np.testing.assert_array_equal(parts, IMAGE)
    assert (parts.shape, parts.dtype, len(parts)) == ((4, 3), np.float64, 4)
    rows = np.array([3, 0, 3, 1])
    np.testing.assert_array_equal(parts[rows], IMAGE[rows])
    np.testing.assert_array_equal(parts[1:3], IMAGE[1:3])
    assert parts.stamps(rows) == [(0, stamp(files[0])), (1, stamp(files[2]))]


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
