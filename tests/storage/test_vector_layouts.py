"""Folders of vectors in every layout: each vector comes out with its own pair, or the folder is refused."""

from __future__ import annotations

import itertools
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.sources import Label
from storage.sources.embeddings import EmbeddingsFolder, EmbeddingsSection
from storage.vector_shards import digests
from storage.vector_size import vector_size
from storage.vectors import open_vectors
from tests.storage.test_vector_shards import acquire

DIM = 3
LAYOUTS = ("npy", "npz", "one npz", "zarr", "clip-retrieval", "parquet")


class Rows:
    """Images with captions in some order of rows. A vector holds the numbers of its image and of its caption."""

    def __init__(self, captions: list[int], random: Random, one_each: bool) -> None:
        counts = [1] * len(captions) if one_each else captions
        pairs = [(image, caption) for image, count in enumerate(counts) for caption in range(count)]
        self.images = [*range(len(counts))]
        if one_each:
            random.shuffle(pairs)
            self.images = [image for image, _ in pairs]
        else:
            random.shuffle(pairs)
            random.shuffle(self.images)
        self.image = np.array([[image + 1, -1, 0] for image in self.images], np.float32)
        self.text = np.array([[image + 1, caption, 1] for image, caption in pairs], np.float32)
        self.table = pl.DataFrame(
            {
                "caption": [f"{image}: {caption}" for image, caption in pairs],
                "unused": [None] * len(pairs),
                "key": [f"k{image}" for image, _ in pairs],
            }
            | ({} if one_each else {"image_row": [self.images.index(image) for image, _ in pairs]})
        )

    def write(self, path: Path, layout: str, random: Random) -> None:
        """Write a folder in a layout. The rows of a layout with parts are cut at random places."""
        path.mkdir()
        if layout in ("clip-retrieval", "parquet"):
            cuts = sorted(random.choices(range(1, len(self.text) + 1), k=random.randrange(4)))
            parts = [slice(*ends) for ends in itertools.pairwise([0, *cuts, len(self.text)]) if ends[0] < ends[1]]
            numbers = random.sample([*range(9, 9 + 2 * len(parts))], len(parts))
            for number, rows in zip(sorted(numbers), parts, strict=True):
                self.write_part(path, layout, number, rows, padded=random.choice(("", "0", "00")))
            return
        self.table.write_parquet(path / "metadata.parquet")
        for name, array in (("image", self.image), ("text", self.text)):
            if layout == "npy":
                np.save(path / f"{name}.npy", array)
            elif layout == "npz":
                np.savez(path / f"{name}.npz", array)
            elif layout == "zarr":
                zarr.create_array(path / name, data=array)
        if layout == "one npz":
            np.savez_compressed(path / "vectors.npz", text_embeddings=self.text, image_embeddings=self.image)

    def write_part(self, path: Path, layout: str, number: int, rows: slice, padded: str) -> None:
        table = self.table[rows]
        if layout == "parquet":
            vectors = {"image_embedding": self.image[rows].tolist(), "text_embedding": self.text[rows].tolist()}
            table.with_columns(**{name: pl.Series(values) for name, values in vectors.items()}).write_parquet(
                path / f"part_{padded}{number}.parquet"
            )
            return
        for name in ("img_emb", "text_emb", "metadata"):
            (path / name).mkdir(exist_ok=True)
        np.save(path / "img_emb" / f"img_emb_{padded}{number}.npy", self.image[rows])
        np.save(path / "text_emb" / f"text_emb_{number}.npy", self.text[rows])
        table.write_parquet(path / "metadata" / f"metadata_{padded}{number}.parquet")


def check(path: Path) -> None:
    """Compare the numbers in each vector with the key of its image and its caption."""
    vectors = open_vectors(path)
    for row, key in enumerate(vectors.keys):
        assert key == f"k{int(vectors.image[np.array([row])][0, 0]) - 1}"
    for row, caption in enumerate(vectors.captions):
        image, number, _ = vectors.text[np.array([row])][0]
        assert caption == f"{int(image) - 1}: {int(number)}"
        assert vectors.keys[vectors.image_row[row]] == f"k{int(image) - 1}"


CAPTIONS = st.lists(st.integers(1, 3), min_size=2, max_size=8)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(CAPTIONS, st.randoms(use_true_random=False), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))
def test_any_layout_and_order_gives_each_vector_to_its_own_pair(
    captions: list[int], random: Random, one: str, two: str
) -> None:
    one_each = bool({one, two} & {"clip-retrieval", "parquet"})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, layout in ((folder / "one", one), (folder / "two", two)):
            Rows(captions, random, one_each).write(path, layout, random)
            check(path)
            size = vector_size(path)
            assert size is not None
            assert (size.images, size.dim) == (len(captions), DIM)
        shards = acquire(folder / "store", folder / "one")
        found = [digests(folder / "store", folder / which, shards) for which in ("one", "two")]
        assert found[0] == found[1]


@settings(max_examples=60, deadline=None)
@given(CAPTIONS, st.randoms(use_true_random=False), st.sampled_from(LAYOUTS))
def test_a_folder_that_lost_rows_or_files_is_refused(captions: list[int], random: Random, layout: str) -> None:
    """One file loses a row or is deleted. What is left is right, or refused. A folder of Parquet may get smaller."""
    rows = Rows(captions, random, one_each=layout in ("clip-retrieval", "parquet"))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vectors"
        rows.write(path, layout, random)
        file = random.choice(sorted(one for one in path.rglob("*") if one.suffix in (".npy", ".parquet")) or [path])
        if layout == "parquet":
            file.unlink()
        elif file.suffix == ".npy":
            array = np.load(file)
            np.save(file, np.delete(array, random.randrange(len(array)), axis=0))
        elif file.suffix == ".parquet":
            table = pl.read_parquet(file)
            lost = random.randrange(table.height)
            table.with_row_index("n").filter(pl.col("n") != lost).drop("n").write_parquet(file)
        else:
            return
        if layout == "parquet" and any(path.iterdir()):
            check(path)
            return
        with pytest.raises(BadInput):
            open_vectors(path)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 175), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 176))
def test_damaged_npy_files_are_read_or_refused(changes: list[tuple[int, int]], length: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        for one in ("image", "text"):
            np.save(path / f"{one}.npy", np.arange(1, 13, dtype=np.float32).reshape(4, 3))
        data = bytearray((path / "text.npy").read_bytes())
        assert len(data) == 176
        for place, value in changes:
            data[place] = value
        (path / "text.npy").write_bytes(data[:length] if length < 150 else data)
        for read in (open_vectors, vector_size):
            with suppress(BadInput):
                read(path)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": np.ones((2, 3)), "text": np.ones((2, 3)), "keys": np.array(["a", "b"])}, "metadata.parquet"),
        ({"image": np.ones((2, 3)), "img_emb": np.ones((2, 3)), "text": np.ones((2, 3))}, "image, img_emb, text"),
        ({"arr_0": np.ones((2, 3)), "arr_1": np.ones((2, 3))}, "arr_0, arr_1"),
        ({"image": np.ones((2, 3))}, "holds the arrays image:"),
        ({"image": np.array([{}, 1], object), "text": np.ones((2, 3))}, "cannot be read as .npz"),
    ],
)
def test_an_archive_that_is_not_clear_is_refused(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "all.npz", **arrays)
    for read in (open_vectors, vector_size):
        with pytest.raises(BadInput, match=says) as raised:
            read(tmp_path)
        assert "all.npz" in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_an_archive_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "all.npz").write_bytes(data)
    with pytest.raises(BadInput, match=r"all\.npz: cannot be read as \.npz"):
        open_vectors(tmp_path)
    np.save(tmp_path / "array.npy", np.ones((2, 3)))
    (tmp_path / "array.npy").rename(tmp_path / "all.npz")
    with pytest.raises(BadInput, match=r"all\.npz: cannot be read as \.npz"):
        open_vectors(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 3), np.int8), np.ones((2, 3), complex), np.array([["a"], ["b"]]), np.ones(3, np.float32),
        np.ones((2, 3, 1), np.float32), np.ones((0, 3), np.float32), np.ones((2, 0), np.float32),
        np.ones((2, 3), np.longdouble), np.float32(1),
    ],
)  # fmt: skip
def test_an_array_of_another_type_or_shape_is_refused_with_its_file(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "image.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "text.npy", array)
    with pytest.raises(BadInput, match=r"text must be floating point .*text\.npy\): save it as float32"):
        open_vectors(tmp_path)


def plain(path: Path, **columns: Any) -> None:
    """Write two pairs as .npy, and metadata with the given columns."""
    for name in ("image", "text"):
        np.save(path / f"{name}.npy", np.array([[1, 2, 3], [3, 2, 1]], np.float32))
    if columns:
        pl.DataFrame(columns, strict=False).write_parquet(path / "metadata.parquet")


@pytest.mark.parametrize(
    "name",
    [
        "metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata/0.csv", "metadata.json", "metadata.csv.gz",
        "Metadata.CSV", "captions.txt", "captions.json", "keys.json", "keys.txt", "keys.csv.zst",
    ],
)  # fmt: skip
def test_metadata_that_is_no_parquet_is_refused_in_place_of_lost(tmp_path: Path, name: str) -> None:
    plain(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(' [{"key": "a"}, {"key": "b"}]')
    with pytest.raises(BadInput, match="metadata is read from Parquet alone"):
        open_vectors(tmp_path)


def test_json_that_describes_the_model_is_no_metadata(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "metadata.json").write_text('{"model": "clip"}')
    assert open_vectors(tmp_path).keys == ["000000000000", "000000000001"]


def test_lists_beside_metadata_with_names_and_captions_are_left_alone(tmp_path: Path) -> None:
    plain(tmp_path, key=["a", "b"])
    (tmp_path / "captions.txt").write_text("one\ntwo\n")
    with pytest.raises(BadInput, match=r"captions\.txt: metadata is read from Parquet alone"):
        open_vectors(tmp_path)
    plain(tmp_path, key=["a", "b"], caption=["one", "two"])
    assert open_vectors(tmp_path).captions == ["one", "two"]
    (tmp_path / "metadata.parquet").unlink()
    vectors = {"image_embedding": [[1.0, 2.0]], "text_embedding": [[2.0, 1.0]], "key": ["a"]}
    pl.DataFrame(vectors).write_parquet(tmp_path / "part.parquet")
    for name in ("image", "text"):
        (tmp_path / f"{name}.npy").unlink()
    with pytest.raises(BadInput, match=r"captions\.txt: metadata is read from Parquet alone"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("name", ["meta.parquet", "captions.parquet", "META.PARQUET"])
@pytest.mark.parametrize("column", ["key", "image_path", "Captions", "group", "image_row"])
def test_parquet_of_another_name_that_states_metadata_is_refused(tmp_path: Path, name: str, column: str) -> None:
    plain(tmp_path)
    pl.DataFrame({column: [1, 0]}).write_parquet(tmp_path / name)
    with pytest.raises(BadInput, match=rf"{name}: its column for `[a-z_]+` is not read: name the file metadata.parq"):
        open_vectors(tmp_path)
    plain(tmp_path, group=["g", "h"])
    if column != "group":
        with pytest.raises(BadInput, match=rf"{name}: its column for `[a-z_]+` is not read: put it into metadata.parq"):
            open_vectors(tmp_path)
    plain(tmp_path, key=["a", "b"], caption=["x", "y"], group=["g", "h"], image_row=[1, 0])
    assert open_vectors(tmp_path).captions == ["x", "y"]


def test_metadata_in_two_places_or_with_a_name_in_other_case_is_refused(tmp_path: Path) -> None:
    plain(tmp_path, key=["a", "b"], caption=["x", "y"])
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "notes.md").touch()
    assert open_vectors(tmp_path).keys == ["a", "b"]
    pl.DataFrame({"key": ["c", "d"]}).write_parquet(tmp_path / "metadata" / "0.parquet")
    with pytest.raises(BadInput, match=r"metadata and metadata\.parquet both hold metadata: keep one"):
        open_vectors(tmp_path)
    (tmp_path / "metadata.parquet").unlink()
    assert open_vectors(tmp_path).keys == ["c", "d"]
    (tmp_path / "metadata").rename(tmp_path / "Metadata")
    with pytest.raises(BadInput, match=r"Metadata: is not read: name it metadata$"):
        open_vectors(tmp_path)
    (tmp_path / "Metadata").rename(tmp_path / "elsewhere")
    pl.DataFrame({"price": [1, 2]}).write_parquet(tmp_path / "Metadata.parquet")
    with pytest.raises(BadInput, match=r"Metadata\.parquet: is not read: name it metadata\.parquet"):
        open_vectors(tmp_path)


def test_files_that_state_no_metadata_are_passed_over(tmp_path: Path) -> None:
    plain(tmp_path)
    pl.DataFrame({"price": [1, 2, 3]}).write_parquet(tmp_path / "prices.parquet")
    (tmp_path / "._meta.parquet").write_bytes(b"macOS")
    np.save(tmp_path / "keys.npy", np.arange(2))
    for name in ("README.txt", "notes.csv", "metadata.md", "model.json"):
        (tmp_path / name).write_text("[]")
    assert open_vectors(tmp_path).keys == ["000000000000", "000000000001"]


def test_columns_that_are_not_used_are_not_read(tmp_path: Path) -> None:
    plain(tmp_path)
    wide = pa.array([None, 10**50], pa.decimal256(60, 3))  # a type that polars cannot read
    table = pa.table({"key": ["a", "b"], "price": wide, "empty": pa.nulls(2), "caption": ["x", None]})
    pq.write_table(table, tmp_path / "metadata.parquet")
    vectors = open_vectors(tmp_path)
    assert (vectors.keys, vectors.captions) == (["a", "b"], ["x", ""])
    pq.write_table(table.select(["price"]), tmp_path / "metadata.parquet")
    assert open_vectors(tmp_path).captions == ["", ""]
    pq.write_table(table.select(["price"]).slice(1), tmp_path / "metadata.parquet")
    with pytest.raises(BadInput, match=r"2 text rows, but the metadata has 1 .*metadata\.parquet"):
        open_vectors(tmp_path)


def test_a_caption_in_a_list_of_one_is_that_caption(tmp_path: Path) -> None:
    plain(tmp_path, caption=[["a dog"], []])
    assert open_vectors(tmp_path).captions == ["a dog", ""]


def test_metadata_of_tables_and_beside_them_is_not_mixed(tmp_path: Path) -> None:
    vectors = {"image_embedding": [[1.0, 2.0], [2.0, 1.0]], "text_embedding": [[1.0, 2.0], [2.0, 1.0]]}
    pl.DataFrame(vectors | {"key": ["a", "b"]}).write_parquet(tmp_path / "part.parquet")
    pl.DataFrame({"key": ["b", "a"], "caption": ["of b", "of a"]}).write_parquet(tmp_path / "metadata.parquet")
    with pytest.raises(BadInput, match=r"metadata\.parquet: its column `caption` is not read"):
        open_vectors(tmp_path)


def test_parts_are_ordered_by_all_numbers_and_equal_numbers_are_refused(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "metadata").mkdir()
    for number, key in ((10, "b"), (2, "a")):
        pl.DataFrame({"key": [key]}).write_parquet(tmp_path / "metadata" / f"part-{number}-of-12.parquet")
    (tmp_path / "metadata" / "._part-2-of-12.parquet").write_bytes(b"macOS")
    assert open_vectors(tmp_path).keys == ["a", "b"]
    (tmp_path / "metadata" / "part-10-of-12.parquet").rename(tmp_path / "metadata" / "part-02-of-12.parquet")
    with pytest.raises(BadInput, match=r"part-02-of-12\.parquet and part-2-of-12\.parquet have the same number"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("kind", [pa.null(), pa.list_(pa.null()), pa.list_(pa.float32())])
@pytest.mark.parametrize("name", ["0.parquet", "2.parquet"])
def test_tables_without_rows_are_passed_over(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    table = {"image_embedding": [[1.0, 2.0]], "text_embedding": [[3.0, 4.0]], "key": ["a"], "caption": ["one"]}
    pl.DataFrame(table).write_parquet(tmp_path / "1.parquet")
    nothing = {**dict.fromkeys(("image_embedding", "text_embedding"), pa.array([], kind)), "key": pa.nulls(0)}
    pq.write_table(pa.table(nothing), tmp_path / name)
    vectors = open_vectors(tmp_path)
    assert (vectors.keys, vectors.captions, vectors.image.shape) == (["a"], ["one"], (1, 2))


@pytest.mark.parametrize(("rows", "is_right"), [([2, 3, 4], True), ([0, 1, 2], False), ([1, 1, 0], False)])
def test_rows_of_images_that_count_from_0_in_each_part_are_refused(
    tmp_path: Path, rows: list[int], is_right: bool
) -> None:
    for folder in ("img_emb", "text_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for part, of_part in enumerate(([0, 1], rows)):
        for folder in ("img_emb", "text_emb"):
            np.save(tmp_path / folder / f"{folder}_{part}.npy", np.ones((len(of_part), 3), np.float32))
        pl.DataFrame({"image_row": of_part}).write_parquet(tmp_path / "metadata" / f"metadata_{part}.parquet")
    if is_right:
        assert open_vectors(tmp_path).image_row.tolist() == [0, 1, *rows]
        return
    with pytest.raises(BadInput, match=r"metadata_1\.parquet: row 0: image_row counts from 0 .* second part is row 2"):
        open_vectors(tmp_path)


@pytest.mark.parametrize(("name", "meant"), [("Captions", "caption"), ("KEY", "key"), ("image_paths", "image_path")])
def test_a_column_whose_name_is_nearly_right_is_refused_in_place_of_lost(tmp_path: Path, name: str, meant: str) -> None:
    plain(tmp_path, **{name: ["a", "b"]})
    with pytest.raises(BadInput, match=rf"its column '{name}' is not read: name it `{meant}`"):
        open_vectors(tmp_path)
    plain(tmp_path, **{name: ["a", "b"], meant: ["c", "d"]})
    assert len(open_vectors(tmp_path).keys) == 2


def test_parts_named_with_their_total_are_refused_with_what_to_name(tmp_path: Path) -> None:
    (tmp_path / "img_emb").mkdir()
    for number in (1, 2):
        np.save(tmp_path / "img_emb" / f"img_emb_{number}-of-2.npy", np.ones((2, 3), np.float32))
    with pytest.raises(BadInput, match=r"img_emb_1-of-2\.npy and img_emb_2-of-2\.npy have the same number of a part"):
        open_vectors(tmp_path)


def test_a_zarr_description_that_is_a_list_is_refused(tmp_path: Path) -> None:
    for name in ("image", "text"):
        zarr.save_array(str(tmp_path / name), np.ones((2, 3), np.float32))
    (tmp_path / "text" / "zarr.json").write_text("[]")
    with pytest.raises(BadInput, match="text: cannot be read as a Zarr array"):
        open_vectors(tmp_path)


def test_the_size_of_arrays_that_are_no_matrices_says_so(tmp_path: Path) -> None:
    plain(tmp_path)
    np.save(tmp_path / "image.npy", np.ones(3, np.float32))
    with pytest.raises(BadInput, match=r"the arrays have the shapes \(3,\) and \(2, 3\): both must be \[rows, dim\]"):
        vector_size(tmp_path)


def test_equal_keys_are_named_with_their_file(tmp_path: Path) -> None:
    plain(tmp_path, key=["a", "a"])
    with pytest.raises(BadInput, match=r"are both 'a' \(.*metadata\.parquet: row 0, .*metadata\.parquet: row 1\)"):
        open_vectors(tmp_path)


def test_a_bad_row_is_named_with_the_part_that_holds_it(tmp_path: Path) -> None:
    for name in ("img_emb", "text_emb"):
        (tmp_path / name).mkdir()
        for number in range(3):
            np.save(tmp_path / name / f"{name}_{number}.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", np.array([[1, 1, 1], [1, np.inf, 1]], np.float32))
    with pytest.raises(BadInput, match=r"text row 3 is zero or not finite \(.*text_emb_1\.npy: row 1\)"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_folder_without_keys_must_have_as_many_images_as_the_pairs(tmp_path: Path, rows: int) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, count in ((one, 2), (two, rows)):
        folder.mkdir()
        for name in ("image", "text"):
            np.save(folder / f"{name}.npy", np.eye(count, 3, dtype=np.float32))
    shards = acquire(tmp_path / "store", one, 1)
    if rows == 2:
        assert digests(tmp_path / "store", two, shards) == digests(tmp_path / "store", one, shards)
        return
    with pytest.raises(BadInput, match=r"has 3 images without keys, the pairs have 2: a metadata\.parquet"):
        digests(tmp_path / "store", two, shards)


def test_sizes_of_folders_that_are_broken_are_bad_input(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "text.npy").write_bytes(b"")
    with pytest.raises(BadInput, match=r"text\.npy"):
        vector_size(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    for first in (None, 1.0):
        table = pl.DataFrame({"image_embedding": [first, None], "text_embedding": [[1.0], [2.0]]}, strict=False)
        table.write_parquet(tmp_path / "part.parquet")
        with pytest.raises(BadInput, match=r"part\.parquet: row 0: `image_embedding` is no list"):
            vector_size(tmp_path)


def test_columns_of_the_metadata_are_labels(tmp_path: Path) -> None:
    plain(tmp_path, key=["b", "a"], kind=["dog", None], tags=[["x", "y", "x"], ["z"]], size=[2, 3])
    section = EmbeddingsSection(source="embeddings", path=str(tmp_path), labels=["kind", "tags", "size"])
    listing = section.open(tmp_path).list()
    assert sorted(listing.labels) == [
        Label("a", "size", "3"), Label("a", "tags", "z"), Label("b", "kind", "dog"), Label("b", "size", "2"),
        Label("b", "tags", "x"), Label("b", "tags", "y"),
    ]  # fmt: skip
    plain_listing = EmbeddingsFolder(tmp_path, {}).list()
    assert plain_listing.items == listing.items
    assert (list(plain_listing.labels), listing.dropped) == ([], [])


def test_labels_of_several_captions_are_those_of_their_image_and_what_is_none_is_listed(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.eye(2, 3, dtype=np.float32))
    np.save(tmp_path / "text.npy", np.ones((3, 3), np.float32))
    table = {
        "image_row": [1, 0, 1],
        "key": ["b", "a", "b"],
        "kind": [{"x": 1}, {"x": 2}, {"x": 1}],
        "k": ["p", "q", "p"],
    }
    (tmp_path / "metadata").mkdir()
    for number in range(3):
        one = {name: values[number : number + 1] for name, values in table.items()}
        pl.DataFrame(one).write_parquet(tmp_path / "metadata" / f"{number}.parquet")
    listing = EmbeddingsFolder(tmp_path, {}, ["k", "kind"]).list()
    assert listing.labels == [Label("b", "k", "p"), Label("a", "k", "q")]
    assert [(one.source_key, one.cause) for one in listing.dropped] == [
        ("b", "label is no text"), ("a", "label is no text"),
    ]  # fmt: skip
    with pytest.raises(
        BadInput, match=r"0\.parquet: has no column 'none', which pairs\.labels names; it has image_row"
    ):
        EmbeddingsFolder(tmp_path, {}, ["none"]).list()


def test_labels_without_metadata_are_bad_input(tmp_path: Path) -> None:
    plain(tmp_path)
    with pytest.raises(BadInput, match=r"has no metadata, in which pairs\.labels names columns"):
        EmbeddingsFolder(tmp_path, {}, ["kind"]).list()
