"""A shard's rows in a folder of vectors: they are found by key in any order of rows, digested, and remembered."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import vector_shards
from storage.dataset import Dataset
from storage.embeddings import read
from storage.errors import BadInput
from storage.fingerprints import stamp
from storage.listing import scan
from storage.pairs import read_captions, read_images, write_shard
from storage.sources.embeddings import EmbeddingsFolder
from storage.vector_shards import digests, open_folder
from storage.vectors import unit
from tasks.embed import adopt_vectors
from tasks.stage import Runtime

DIM = 3


class Pairs:
    """Images with captions. Each image and each caption has its own random vector, which identifies it."""

    def __init__(self, captions: list[list[str]]) -> None:
        self.keys = [f"k{n:03}" for n in range(len(captions))]
        self.captions = [(image, text) for image, texts in enumerate(captions) for text in texts]
        rng = np.random.default_rng(len(captions))
        self.image = rng.standard_normal((len(captions), DIM)).astype(np.float32)
        self.text = rng.standard_normal((len(self.captions), DIM)).astype(np.float32)

    def write(self, folder: Path, images: list[int], captions: list[int], **columns: Any) -> Path:
        """Write a folder with the vectors of some images and captions, in the given orders."""
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", self.image[images])
        np.save(folder / "text.npy", self.text[captions])
        owners = [self.captions[row][0] for row in captions]
        table = {
            "image_row": [images.index(owner) for owner in owners],
            "key": [self.keys[owner] for owner in owners],
            "caption": [self.captions[row][1] for row in captions],
            **columns,
        }
        kept = {name: values for name, values in table.items() if values is not None}
        pl.DataFrame(kept).write_parquet(folder / "metadata.parquet")
        return folder


def acquire(store: Path, folder: Path, shard_size: int = 4) -> list[Dataset]:
    """Make the shards of pairs of a folder of vectors, as the stage acquire does."""
    store.mkdir(exist_ok=True)
    source = EmbeddingsFolder(folder, {"at": str(folder)})
    shards = []
    for n, listing in enumerate(scan(store, source, shard_size).listings):
        path = f"pairs{n}-{listing.digest[:12]}"
        if not (store / path).exists():
            (store / path).mkdir()
            write_shard(store / path, store, listing, source, lambda data: (1, 1))
        shards.append(Dataset(path=path, recipe="r", digest=listing.digest, rows=listing.rows))
    return shards


def embedded(store: Path, shard: Dataset, folder: Path) -> dict[str, list[float]]:
    """The embeddings of a shard by name: an image's key, or `key: caption` for a caption."""
    (rows,) = digests(store, folder, [shard])
    made = adopt_vectors.make(Runtime(store=store), pairs=shard, rows=rows, path=str(folder))
    vectors, images, captions = read(store, made), read_images(store, shard), read_captions(store, shard)
    key = dict(images.select("image_id", "source_key").iter_rows())
    found = dict(zip(images["source_key"], vectors.image.tolist(), strict=True))
    for row, (image_id, text) in enumerate(captions.select("image_id", "caption").iter_rows()):
        found[f"{key[image_id]}: {text}"] = vectors.text[row].tolist()
    return found


def expected(pairs: Pairs) -> dict[str, list[float]]:
    found = dict(zip(pairs.keys, unit(pairs.image).tolist(), strict=True))
    for (image, text), row in zip(pairs.captions, unit(pairs.text).tolist(), strict=True):
        found[f"{pairs.keys[image]}: {text}"] = row
    return found


CAPTIONS = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True), min_size=2, max_size=9)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(CAPTIONS, st.randoms(use_true_random=False), st.booleans())
def test_rows_in_any_order_belong_to_their_images_and_captions(texts: list[list[str]], random, one_shard: bool) -> None:
    pairs = Pairs(texts)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        images, captions = [*range(len(pairs.keys))], [*range(len(pairs.captions))]
        one = pairs.write(store / "one", images, captions)
        random.shuffle(images)
        random.shuffle(captions)
        two = pairs.write(store / "two", images, captions)
        shards = acquire(store / "store", one, 100 if one_shard else 3)
        assert digests(store / "store", one, shards) == digests(store / "store", two, shards)
        found = {key: row for shard in shards for key, row in embedded(store / "store", shard, two).items()}
        wanted = expected(pairs)
        assert found.keys() == wanted.keys()
        for key, row in wanted.items():
            np.testing.assert_allclose(found[key], row, atol=2e-3)  # stored as float16


@settings(max_examples=25, deadline=None)
@given(CAPTIONS, st.randoms(use_true_random=False), st.booleans())
def test_a_row_that_is_missing_is_bad_input(texts: list[list[str]], random, an_image: bool) -> None:
    pairs = Pairs(texts)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        images, captions = [*range(len(pairs.keys))], [*range(len(pairs.captions))]
        shards = acquire(store / "store", pairs.write(store / "one", images, captions))
        if an_image:
            lost = random.choice(images)
            images.remove(lost)
            captions = [row for row in captions if pairs.captions[row][0] != lost]
            says = (
                f"1 of the {len(pairs.keys)} images of pairs.path are missing in the folder, the first is 'k{lost:03}'"
            )
        else:
            lost = captions.pop(random.randrange(len(captions)))
            image, text = pairs.captions[lost]
            says = f"1 captions of pairs.path are missing in the folder, the first is {text!r} of the image"
            if all(pairs.captions[row][0] != image for row in captions):  # no other caption names the image
                says = f"images of pairs.path are missing in the folder, the first is 'k{image:03}'"
        two = pairs.write(store / "two", images, captions)
        with pytest.raises(BadInput) as raised:
            digests(store / "store", two, shards)
        assert says in str(raised.value)


def test_equal_texts_of_one_image_are_told_apart_by_their_order_and_other_texts_are_bad_input(tmp_path: Path) -> None:
    pairs = Pairs([["a", "b"], ["c"]])
    pairs.captions[1] = (0, "a")
    one = pairs.write(tmp_path / "one", [0, 1], [0, 1, 2])
    two = pairs.write(tmp_path / "two", [1, 0], [2, 0, 1])
    (shard,) = acquire(tmp_path / "store", one)
    place = open_folder(two, stamp(two)).place(tmp_path / "store", shard)
    assert (place.image.tolist(), place.text.tolist()) == ([1, 0], [1, 2, 0])
    three = pairs.write(tmp_path / "three", [0, 1], [0, 1, 2], caption=["a", "a", "other"])
    with pytest.raises(BadInput, match="the first is 'c' of the image 'k001'"):
        digests(tmp_path / "store", three, [shard])


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"key": None}, "names its images differently from pairs.path: it has '000000000000', the pairs have 'k000'"),
        (
            {"caption": None},
            "the image 'k000' has 2 captions in the folder and 2 in the pairs, and one of them states no",
        ),
    ],
)
def test_a_folder_that_names_things_otherwise_is_bad_input(tmp_path: Path, columns: dict, says: str) -> None:
    pairs = Pairs([["a", "b"], ["c"]])
    shards = acquire(tmp_path / "store", pairs.write(tmp_path / "one", [0, 1], [0, 1, 2]))
    two = pairs.write(tmp_path / "two", [0, 1], [0, 1, 2], **columns)
    with pytest.raises(BadInput, match=says):
        digests(tmp_path / "store", two, shards)


def test_without_texts_a_single_caption_goes_with_its_image(tmp_path: Path) -> None:
    pairs = Pairs([["a"], ["b"], ["c"]])
    (shard,) = acquire(tmp_path / "store", pairs.write(tmp_path / "one", [0, 1, 2], [0, 1, 2]))
    two = pairs.write(tmp_path / "two", [2, 0, 1], [1, 2, 0], caption=None)
    place = open_folder(two, stamp(two)).place(tmp_path / "store", shard)
    assert (place.image.tolist(), place.text.tolist()) == ([1, 2, 0], [2, 0, 1])


def test_more_vectors_change_the_digests_of_their_own_shards_alone(tmp_path: Path) -> None:
    pairs = Pairs([["a"]] * 9)
    folder = pairs.write(tmp_path / "one", [*range(8)], [*range(8)])
    before = acquire(tmp_path / "store", folder)
    known = digests(tmp_path / "store", folder, before)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    pairs.write(folder, [*range(9)], [*range(9)])
    after = acquire(tmp_path / "store", folder)
    assert after[:2] == before
    assert len(after) == 3
    assert digests(tmp_path / "store", folder, after)[:2] == known


def test_digests_are_remembered_by_file_and_a_new_part_reads_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "vectors", tmp_path / "store"
    rng = np.random.default_rng(1)

    def part(number: int) -> None:
        for name in ("img_emb", "text_emb", "metadata"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("img_emb", "text_emb"):
            np.save(folder / name / f"{name}_{number}.npy", rng.standard_normal((4, DIM)).astype(np.float32))
        keys = [f"{4 * number + row:03}.jpg" for row in range(4)]
        table = pl.DataFrame({"image_path": keys, "caption": keys})
        table.write_parquet(folder / "metadata" / f"metadata_{number}.parquet")

    part(0)
    part(1)
    shards = acquire(store, folder)
    first = digests(store, folder, shards)
    read_rows: list[int] = []
    digest = vector_shards.Folder.digest

    def counting(self: Any, place: Any) -> str:
        read_rows.append(len(place.image))
        return digest(self, place)

    monkeypatch.setattr(vector_shards.Folder, "digest", counting)
    assert digests(store, folder, shards) == first
    assert read_rows == []
    part(2)
    shards = acquire(store, folder)
    assert digests(store, folder, shards)[:2] == first
    assert read_rows == [4]
    memo = store / "sources" / "vectors.json"
    memo.write_text(memo.read_text()[:-40])
    assert digests(store, folder, shards)[:2] == first
    assert read_rows == [4, 4, 4, 4]
    assert list(json.loads(memo.read_text())) == [str(folder)]


def write_part(folder: Path, number: int, kind: str = "<f4", keys: int | None = None) -> None:
    """Write one part of a folder in clip-retrieval's layout, with values that every type of number holds exactly.

    keys: the number of the part whose names the metadata has; default: its own.
    """
    rng = np.random.default_rng(number)
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("img_emb", "text_emb"):
        values = rng.integers(1, 9, (4, DIM)).astype(kind)
        np.save(folder / name / f"{name}_{number}.npy", values)
    names = [f"{4 * (number if keys is None else keys) + row:03}.jpg" for row in range(4)]
    pl.DataFrame({"image_path": names, "caption": names}).write_parquet(
        folder / "metadata" / f"metadata_{number}.parquet"
    )


def test_names_that_change_places_between_parts_change_the_digest(tmp_path: Path) -> None:
    """The same rows of the same files are read, in another order."""
    folder, store = tmp_path / "vectors", tmp_path / "store"
    write_part(folder, 0, keys=1)
    write_part(folder, 1, keys=0)
    shards = acquire(store, folder, shard_size=8)
    wrong = digests(store, folder, shards)
    swapped = {n: (folder / "metadata" / f"metadata_{n}.parquet").read_bytes() for n in (0, 1)}
    for n in (0, 1):
        (folder / "metadata" / f"metadata_{n}.parquet").write_bytes(swapped[1 - n])
    right = digests(store, folder, acquire(store, folder, shard_size=8))
    assert right != wrong
    assert digests(tmp_path / "new", folder, acquire(tmp_path / "new", folder, shard_size=8)) == right


def test_a_part_of_another_type_changes_no_digest_of_other_rows(tmp_path: Path) -> None:
    folder, store = tmp_path / "vectors", tmp_path / "store"
    write_part(folder, 0, "<f2")
    shards = acquire(store, folder)
    before = digests(store, folder, shards)
    write_part(folder, 1, "<f8")
    shards = acquire(store, folder)
    (store / "sources" / "vectors.json").unlink()
    assert digests(store, folder, shards)[:1] == before
    adopt_vectors.make(Runtime(store=store), pairs=shards[0], rows=before[0], path=str(folder))


def test_a_part_that_is_replaced_while_digests_are_made_leaves_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "vectors", tmp_path / "store"
    write_part(folder, 0)
    write_part(folder, 1)
    shards = acquire(store, folder)
    digest = vector_shards.Folder.digest

    def replacing(self: Any, place: Any) -> str:
        other = np.full((4, DIM), 7, "<f4")
        np.save(folder / "new.npy", other)
        (folder / "new.npy").rename(folder / "img_emb" / "img_emb_1.npy")
        return digest(self, place)

    monkeypatch.setattr(vector_shards.Folder, "digest", replacing)
    with pytest.raises(BadInput, match="the folder changed while it was read"):
        digests(store, folder, shards)
    monkeypatch.undo()
    after = digests(store, folder, shards)
    assert after == digests(tmp_path / "new", folder, acquire(tmp_path / "new", folder))


def test_a_digest_that_turned_out_wrong_is_forgotten(tmp_path: Path) -> None:
    pairs = Pairs([["a"], ["b"]])
    folder, store = pairs.write(tmp_path / "one", [0, 1], [0, 1]), tmp_path / "store"
    (shard,) = acquire(store, folder)
    (rows,) = digests(store, folder, [shard])
    memo = store / "sources" / "vectors.json"
    memo.write_text(memo.read_text().replace(rows, "0" * 64))
    (wrong,) = digests(store, folder, [shard])
    with pytest.raises(BadInput, match="run the study again"):
        adopt_vectors.make(Runtime(store=store), pairs=shard, rows=wrong, path=str(folder))
    assert digests(store, folder, [shard]) == [rows]


def test_a_folder_that_changed_since_its_digest_was_taken_is_not_embedded(tmp_path: Path) -> None:
    pairs = Pairs([["a"], ["b"]])
    folder = pairs.write(tmp_path / "one", [0, 1], [0, 1])
    (shard,) = acquire(tmp_path / "store", folder)
    (rows,) = digests(tmp_path / "store", folder, [shard])
    np.save(folder / "image.npy", pairs.image + 1)
    with pytest.raises(BadInput, match="the folder changed while the study was running"):
        adopt_vectors.make(Runtime(store=tmp_path / "store"), pairs=shard, rows=rows, path=str(folder))
    assert not list((tmp_path / "store" / "embeddings").glob("*/dataset.json"))


def test_a_shard_of_which_every_image_was_removed_has_no_rows(tmp_path: Path) -> None:
    pairs = Pairs([["a"]] * 6)
    folder = pairs.write(tmp_path / "one", [*range(6)], [*range(6)])
    acquire(tmp_path / "store", folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    pairs.write(folder, [*range(4)], [*range(4)])
    shards = acquire(tmp_path / "store", folder)
    assert [shard.rows for shard in shards] == [4, 0]
    assert embedded(tmp_path / "store", shards[1], folder) == {}


def test_a_bad_vector_is_named_by_its_row_in_the_folder(tmp_path: Path) -> None:
    pairs = Pairs([["a"]] * 6)
    pairs.text[4] = np.nan
    folder = pairs.write(tmp_path / "one", [*range(6)], [5, 4, 3, 2, 1, 0])
    shards = acquire(tmp_path / "store", folder)
    with pytest.raises(BadInput, match="text row 1 is zero or not finite"):
        digests(tmp_path / "store", folder, shards)
