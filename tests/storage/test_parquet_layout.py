"""Configs, splits, nested columns and classes of Parquet datasets, and the choice of the files that the hub sends."""

from __future__ import annotations

import fnmatch
import io
import json
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from storage.errors import BadInput
from storage.sources import Listing
from storage.sources.captions import texts_of
from storage.sources.huggingface import HuggingFace
from storage.sources.parquet_layout import matching, place_of

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (2, 2), shade).save(out, "png")
    return out.getvalue()


def put(file: Path, shades: list[int], columns: dict[str, Any], features: Any = None) -> None:
    """Write a Parquet file with one picture for each shade."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": png(shade), "path": f"{shade}.png"} for shade in shades], STRUCT)
    table = pa.table({"image": images, **columns})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file)


def source(repo: Path, **options: Any) -> HuggingFace:
    return HuggingFace(str(repo), repo.parent / "downloads", identity={"at": "test"}, **options)


def texts(listing: Listing) -> list[str]:
    return [caption.text for item in listing.items for caption in item.captions]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train-00000-of-00002.parquet", ("", "train")),
        ("data/train_sft-00000-of-00002-ab12.parquet", ("", "train_sft")),
        ("data/train.parquet", ("", "train")),
        ("train/0000.parquet", ("", "train")),
        ("en/validation-00000-of-00001.parquet", ("en", "validation")),
        ("default/partial-train/0001.parquet", ("", "train")),
        ("en/custom/0000.parquet", ("en", "custom")),
        ("coco_test.parquet", ("", "test")),
        ("data/0000.parquet", ("", "")),
        ("x.parquet", ("", "")),
    ],
)
def test_a_path_names_config_and_split(name: str, place: tuple[str, str]) -> None:
    assert tuple(place_of(name)) == place


def dataset(root: Path) -> Path:
    """Two configs with other images, each with two splits; one more file at the root."""
    for number, name in enumerate(["a/train-0-of-1", "a/test-0-of-1", "b/train/0000", "b/test/0000", "test"]):
        put(root / f"{name}.parquet", [number], {"caption": [name]})
    return root


def test_configs_and_splits_are_chosen(tmp_path: Path) -> None:
    repo = dataset(tmp_path / "repo")
    assert len(texts(source(repo).list())) == 5
    assert texts(source(repo, config=["a"]).list()) == ["a/test-0-of-1", "a/train-0-of-1"]
    assert texts(source(repo, splits=["train"]).list()) == ["a/train-0-of-1", "b/train/0000"]
    assert texts(source(repo, config=["default"], splits=["test"]).list()) == ["test"]
    assert texts(source(repo, config=["a", "b"], splits=["test"]).list()) == ["a/test-0-of-1", "b/test/0000"]
    with pytest.raises(BadInput, match=r"pairs\.config = \['c'\]: .* has no 'c'. Available: 'a', 'b', 'default'"):
        source(repo, config=["c"]).list()
    with pytest.raises(
        BadInput, match=r"pairs\.splits = \['train', 'dev'\]: .* has no 'dev'. Available: 'test', 'train'"
    ):
        source(repo, splits=["train", "dev"]).list()
    with pytest.raises(BadInput, match=r"pairs\.splits = \['train'\]"):
        source(repo, config=["default"], splits=["train"]).list()


def test_configs_of_the_same_images_must_be_chosen(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    put(repo / "en" / "train-0-of-1.parquet", [1, 2, 3], {"caption": ["one", "two", "three"]})
    put(repo / "de" / "train-0-of-1.parquet", [1, 2, 9], {"caption": ["eins", "zwei", "neun"]})
    with pytest.raises(BadInput, match=r"'de' and 'en' hold the same images \(2 of 3\): set pairs.config to one of"):
        source(repo).list()
    assert texts(source(repo, config=["en"]).list()) == ["one", "two", "three"]
    assert texts(source(repo, config=["en", "de"]).list()) == ["eins", "one", "zwei", "two", "neun", "three"]


@pytest.mark.parametrize("pattern", ["data/**.parquet", "/data/*.parquet", "../*.parquet", "", "a**/x.parquet", "x\0"])
def test_patterns_without_a_meaning_are_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(BadInput, match=r"^pairs\.files = "):
        source(dataset(tmp_path / "repo"), files=pattern).list()


NAMES = ["x.parquet", "a/x.parquet", "a/b/x.parquet", "a/b/train-1.parquet", "data/train-0.parquet", "[z]/q.parquet"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@given(
    folders=st.lists(st.sampled_from(["**", "*", "a", "b", "data", "?", "[ab]", "[!a]", "[[]z]", "[]"]), max_size=3),
    file=st.sampled_from(["*.parquet", "x.parquet", "train-?.parquet", "train-[0-9].parquet", "[!x]*.parquet", "*"]),
)
def test_patterns_mean_on_the_hub_what_they_mean_in_a_folder(tree: Path, folders: list[str], file: str) -> None:
    pattern = "/".join([*folders, file])
    found = sorted(path.relative_to(tree).as_posix() for path in tree.glob(pattern) if path.is_file())
    assert sorted(matching(NAMES, pattern)) == found


def test_only_files_that_are_read_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that keeps its files in a folder. `snapshot_download` copies what its patterns let through."""
    hub = dataset(tmp_path / "hub")
    (hub / "README.md").write_text("x")
    names = [path.relative_to(hub).as_posix() for path in hub.rglob("*") if path.is_file()]
    asked: list[Any] = []

    def download(repo: str, *, allow_patterns: list[str], **rest: Any) -> str:
        asked.append((repo, rest))
        for name in names:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "cache" / name).write_bytes((hub / name).read_bytes())
        return str(tmp_path / "cache")

    # The folder of a snapshot has the name of its commit.
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *args, **options: SimpleNamespace(sha="cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *args, **options: names)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    def reader(**options: Any) -> HuggingFace:
        return HuggingFace("owner/name", tmp_path / "downloads", identity={}, **options)

    one = reader(config=["b"], splits=["train"])
    assert texts(one.list()) == ["b/train/0000"]
    assert [path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").rglob("*.*")] == [
        "b/train/0000.parquet"
    ]
    assert list(one.read([one.list().items[0].locator])) == [png(2)]
    assert asked == [("owner/name", {"repo_type": "dataset", "revision": "main"})]
    assert len(texts(reader().list())) == 5  # also the file at the root
    with pytest.raises(BadInput, match=r"pairs\.config = \['none'\]: the dataset has no 'none'. Available: 'a'"):
        reader(config=["none"]).list()
    with pytest.raises(BadInput, match=r"pairs\.files: 'x/\*' matches no Parquet file in the dataset"):
        reader(files="x/*").list()


def test_nested_captions(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    columns = {
        "sentences": [[{"raw": "a", "id": 1}, {"raw": "b", "id": 2}], [{"raw": None, "id": 3}]],
        "lists": [{"raw": ["c", "d"], "id": [1, 2]}, {"raw": ["e"], "id": [3]}],
    }
    put(repo / "x.parquet", [1, 2], columns)
    whole = source(repo, caption_column="sentences").list()
    assert (texts(whole), Counter(d.cause for d in whole.dropped)["no caption"]) == (["a", "b"], 1)
    assert texts(source(repo, caption_column="sentences.raw").list()) == ["a", "b"]
    assert texts(source(repo, caption_column="lists.raw").list()) == ["c", "d", "e"]
    says = r"pairs\.caption_column = 'caption': x\.parquet has the columns image, sentences, lists; "
    with pytest.raises(BadInput, match=says + r"sentences\.raw, lists\.raw may be captions"):
        source(repo).list()
    with pytest.raises(BadInput, match=r"pairs\.labels = 'lists\.none'"):
        source(repo, caption_column="sentences", labels=["lists.none"]).list()


def test_paths_without_bytes_are_shown(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    images = pa.array([{"bytes": None, "path": "images/0.png"}], STRUCT)
    pq.write_table(pa.table({"image": images, "caption": ["a"]}), tmp_path / "repo" / "x.parquet")
    assert [tuple(d) for d in source(tmp_path / "repo").list().dropped] == [
        ("x.parquet:0", "no bytes in the table", "images/0.png")
    ]


def test_labels_are_named_by_the_classes_of_the_schema(tmp_path: Path) -> None:
    names = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    features = {
        "label": names,
        "tags": {"feature": names, "_type": "Sequence"},
        "objects": {"feature": {"category": names}, "_type": "Sequence"},
    }
    columns = {
        "caption": ["x", "y", "z"],
        "label": [1, -1, 7],
        "tags": [[0, 1], [], None],
        "objects": [{"category": [0]}, {"category": []}, {"category": [1]}],
        "plain": [3, None, 4],
        "text": [" old ", "", "new"],
    }
    put(tmp_path / "repo" / "x.parquet", [1, 2, 3], columns, features)
    wanted = ["label", "tags", "objects.category", "plain", "text"]
    listing = source(tmp_path / "repo", labels=wanted).list()
    keys = [item.source_key for item in listing.items]
    assert {(keys.index(key), name, label) for key, name, label in listing.labels} == {
        (0, "label", "dog"),
        (0, "tags", "cat"),
        (0, "tags", "dog"),
        (0, "objects.category", "cat"),
        (2, "objects.category", "dog"),
        (0, "plain", "3"),
        (2, "plain", "4"),
        (0, "text", "old"),
        (2, "text", "new"),
    }
    assert [(d.source_key, d.cause) for d in listing.dropped] == [(keys[2], "label is no text")]
    assert listing.items == source(tmp_path / "repo").list().items


TEXT = st.text(max_size=5)
CAPTIONS = st.one_of(st.none(), st.lists(st.one_of(st.none(), TEXT), max_size=3))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), CAPTIONS, st.booleans()), min_size=1, max_size=12), st.integers(1, 3))
def test_every_row_is_on_its_image_or_counted(rows: list[tuple[int, Any, bool]], parts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        repo.mkdir()
        for part in range(parts):
            own = rows[part::parts]
            images = [{"bytes": None if gone else png(shade), "path": None} for shade, _, gone in own]
            captions = pa.array([value for _, value, _ in own], pa.list_(pa.string()))
            pq.write_table(pa.table({"image": pa.array(images, STRUCT), "caption": captions}), repo / f"{part}.parquet")
        reader = source(repo)
        listing = reader.list()
        pictures = list(reader.read([item.locator for item in listing.items]))
    expected: dict[bytes, Counter[str]] = {}
    left = 0
    for shade, value, gone in rows:
        found = texts_of(value)
        if not gone:
            expected.setdefault(png(shade), Counter()).update(found.texts)
            left += len(found.left_out)
    got = {data: Counter(c.text for c in item.captions) for data, item in zip(pictures, listing.items, strict=True)}
    assert got == {data: own for data, own in expected.items() if own}
    causes = Counter(one.cause for one in listing.dropped)
    assert causes["no bytes in the table"] == sum(gone for _, _, gone in rows)
    assert causes["no caption"] == sum(not own for own in expected.values())
    assert causes["caption is empty"] == left
