"""Captions and categories in COCO's files as exporters write them: ids that repeat, no texts, objects, odd names."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.sources import Label, Listing
from storage.sources.captions import texts_of
from storage.sources.coco import Coco
from storage.sources.coco_annotations import id_of, parse_captions

THREE = [{"id": n, "file_name": f"{n}.png"} for n in range(3)]
OBJECTS: dict[str, Any] = {
    "images": THREE,
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 18, "segmentation": [[0.5, 12.0, 7.25]]},
        {"id": 2, "image_id": 0, "category_id": 18.0},
        {"id": 3, "image_id": 0, "category_id": "1"},
        {"id": 4, "image_id": 2, "category_id": 1},
        {"id": 5, "image_id": 2, "category_id": 99},
        {"id": 6, "image_id": 777, "category_id": 1},
    ],
    "categories": [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 18, "name": "dog", "supercategory": "animal"},
    ],
}


def rows(*captions: tuple[Any, Any, Any]) -> list[dict[str, Any]]:
    return [{"id": number, "image_id": image, "caption": caption} for number, image, caption in captions]


def put(root: Path, images: Any, annotations: Any, files: tuple[str, ...] = ("0.png", "1.png", "2.png")) -> Path:
    (root / "val2017").mkdir(parents=True)
    for name in files:
        (root / "val2017" / name).write_bytes(b"picture " + os.fsencode(name))
    (root / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


def source(root: Path, **options: Any) -> Coco:
    return Coco(str(root), root / "downloads", identity={"at": "test"}, **options)


def listed(root: Path, images: Any, annotations: Any, **options: Any) -> Listing:
    return source(put(root, images, annotations, **options)).list()


def texts(listing: Listing) -> dict[str, list[str]]:
    return {item.source_key[-1]: [caption.text for caption in item.captions] for item in listing.items}


def causes(listing: Listing) -> Counter[str]:
    return Counter(one.cause for one in listing.dropped)


def test_all_captions_stay_where_every_annotation_has_the_id_0(tmp_path: Path) -> None:
    listing = listed(tmp_path, THREE, rows(*[(0, n, f"caption {m % 4} of {n}") for n in range(3) for m in range(5)]))
    assert {key: Counter(own) for key, own in texts(listing).items()} == {
        f"{n}": Counter(f"caption {m % 4} of {n}" for m in range(5)) for n in range(3)
    }
    keys = [caption.source_key for item in listing.items for caption in item.captions]
    assert len(set(keys)) == 15


def test_an_id_that_repeats_in_other_images_alone_stays_the_key(tmp_path: Path) -> None:
    listing = listed(tmp_path, THREE, rows((7, 0, "a"), (7, 1, "b"), (8, 1, "c")))
    assert [[tuple(c) for c in item.captions] for item in listing.items] == [
        [("000000000007", "a")],
        [("000000000007", "b"), ("000000000008", "c")],
    ]


def test_an_image_id_with_two_names_is_refused_and_equal_entries_are_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"captions_val2017\.json: images: the id 0 is given to '0.png' and to '1.png'"):
        listed(tmp_path / "a", [{"id": 0, "file_name": "0.png"}, {"id": 0.0, "file_name": "1.png"}], rows((1, 0, "x")))
    twice = listed(tmp_path / "b", THREE + THREE, rows((1, 0, "x"), (2, 1, "y"), (3, 2, "z")))
    assert (texts(twice), twice.dropped) == ({"0": ["x"], "1": ["y"], "2": ["z"]}, [])


def test_values_that_are_no_captions_are_counted(tmp_path: Path) -> None:
    annotations = rows((0, 0, None), (1, 1, ["a dog", "ein Hund"]), (2, 2, "fine"), (3, 2, float("nan")), (4, 2, 42))
    annotations += [*rows((5, 2, []), (6, None, "whose?"), (7, True, "whose?")), {"id": 8, "image_id": 1}, "text"]  # type: ignore[list-item]
    listing = listed(tmp_path, THREE, annotations)
    assert {key: sorted(own) for key, own in texts(listing).items()} == {"1": ["a dog", "ein Hund"], "2": ["fine"]}
    assert causes(listing) == {
        "caption is empty": 3,
        "caption is no text": 1,
        "no caption": 1,
        "annotation without an image id": 2,
        "annotation without the key caption": 1,
        "entry is no JSON object": 1,
    }


def test_images_without_a_usable_id_or_name_are_counted(tmp_path: Path) -> None:
    images = [*THREE, {"file_name": "x.png"}, {"id": [], "file_name": "y.png"}, {"id": 5}, {"id": 6, "file_name": 7}, 8]
    listing = listed(tmp_path, images, rows((1, 0, "x"), (2, 5, "no name")))
    assert causes(listing) == {
        "image without an id": 2,
        "image without a file name": 2,
        "entry is no JSON object": 1,
        "no caption": 2,
        "caption of an unlisted image": 1,
    }


def test_ids_are_numbers_or_texts(tmp_path: Path) -> None:
    images = [
        {"id": "2", "file_name": "2.png"},
        {"id": "img-b", "file_name": "1.png"},
        {"id": 0.0, "file_name": "0.png"},
    ]
    listing = listed(tmp_path, images, rows(("x", 2.0, "two"), (None, "img-b", "b"), ("12", "0", "zero")))
    assert [(item.source_key, [c.text for c in item.captions]) for item in listing.items] == [
        ("000000000000", ["zero"]),
        ("000000000002", ["two"]),
        ("img-b", ["b"]),
    ]
    assert [c.source_key.partition("#")[0] for item in listing.items for c in item.captions] == [
        "000000000012",
        "x",
        "img-b",
    ]
    assert [id_of(value) for value in (True, 1.5, float("inf"), " ", [], None)] == [None] * 6


def test_lone_surrogates_and_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    images = [{"id": 0, "file_name": "0.png"}, {"id": 1, "file_name": odd}, {"id": 2, "file_name": "\ud83d.png"}]
    root = put(tmp_path, images, rows((0, 0, "party \ud83d"), (1, 1, "a"), (2, 2, "b")), files=("0.png", odd))
    coco = source(root)
    listing = coco.list()
    assert texts(listing) == {"0": ["party \ufffd"], "1": ["a"]}
    assert list(coco.read([item.locator for item in listing.items])) == [
        b"picture 0.png",
        b"picture caf\xe9.png",
    ]
    json.dumps(listing).encode()
    assert all(field.encode() for item in listing.items for field in item[:3] if field)
    assert causes(listing) == {"no image of that name": 1}


def test_two_ids_of_one_file_are_two_items(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "0.png"}, {"id": 1, "file_name": "0.png"}]
    assert texts(listed(tmp_path, images, rows((0, 0, "a"), (1, 1, "b")))) == {"0": ["a"], "1": ["b"]}


def test_a_very_long_file_name_is_counted(tmp_path: Path) -> None:
    listing = listed(tmp_path, [*THREE, {"id": 9, "file_name": "x" * 5000}], rows((0, 0, "a"), (1, 9, "b")))
    assert causes(listing)["no image of that name"] == 1


def zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_equal_names_in_several_folders_of_a_zip(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": name} for n, name in enumerate(["a.png", "b.png", "c.png", "train2017/b.png"])]
    root = put(tmp_path, images, rows(*[(n, n, f"text {n}") for n in range(4)]))
    members = {"val2017/a.png": b"right", "thumbs/a.png": b"small", "__MACOSX/val2017/._a.png": b"mac"}
    members |= {"train2017/b.png": b"t", "test2017/b.png": b"u", "x/c.png": b"same", "y/c.png": b"same"}
    zipped(root / "all.zip", members)
    coco = source(root, images=str(root / "all.zip"))
    listing = coco.list()
    assert list(coco.read([item.locator for item in listing.items])) == [b"right", b"same", b"t"]
    assert [(d.source_key, d.cause, d.detail) for d in listing.dropped] == [
        ("000000000001", "several images of that name", "b.png: train2017/b.png, test2017/b.png")
    ]


def test_other_files_are_told_apart_from_captions(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no annotation has the key caption, the first has id, image_id.*instances_"):
        parse_captions(json.dumps(OBJECTS).encode(), "x.json")
    with pytest.raises(BadInput, match=r"x.json: not COCO's captions: it has no list 'annotations'; it holds images"):
        parse_captions(b'{"images": []}', "x.json")
    with pytest.raises(BadInput, match=r"it holds list \[\{'image_id': 1"):
        parse_captions(b'[{"image_id": 1, "caption": "a result"}]', "x.json")
    for damage in (b"", b"\xff\xfe", b"[" * 100_000, b'{"images": [{"id": ' + b"9" * 5000):
        with pytest.raises(BadInput, match="cannot be read as JSON"):
            parse_captions(damage, "x.json")


def test_a_folder_of_annotations_is_looked_into(tmp_path: Path) -> None:
    root = put(tmp_path, THREE, rows((0, 0, "a")))
    assert texts(source(root, annotations=str(root)).list()) == {"0": ["a"]}
    with pytest.raises(BadInput, match=r"pairs\.annotations: the folder .* holds no captions_val2017\.json"):
        source(root, annotations=str(root / "val2017")).list()


LABELS = {
    Label("000000000000", "category", "dog"),
    Label("000000000000", "supercategory", "animal"),
    Label("000000000000", "category", "person"),
    Label("000000000000", "supercategory", "person"),
    Label("000000000002", "category", "person"),
    Label("000000000002", "supercategory", "person"),
}


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_categories_beside_the_captions_are_labels(tmp_path: Path, form: str) -> None:
    root = put(tmp_path, THREE, rows((0, 0, "a"), (1, 1, "b")))
    before = source(root).list()
    (root / "instances_val2017.json").write_text(json.dumps(OBJECTS))
    if form == "zip":
        names = ("captions_val2017.json", "instances_val2017.json")
        zipped(
            root / "annotations_trainval2017.zip", {f"annotations/{name}": (root / name).read_bytes() for name in names}
        )
        for name in names:
            (root / name).unlink()
    for _ in range(2):  # the second time from the index
        listing = source(root).list()
        assert (set(listing.labels), len(listing.labels)) == (LABELS, 6)
        assert listing.items == before.items
        assert set(listing.dropped) - set(before.dropped) == {
            ("category 000000000099", "label of an unlisted category", "1 annotations")
        }
    assert list(before.labels) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"categories": None}, "has no list 'categories'"),
        ({"images": [{"id": 1, "file_name": "other.png"}]}, r"the image 000000000001 is 'other.png' here and '1.png'"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "categories: the id 1 is given to"),
    ],
)
def test_broken_files_of_objects_are_told(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    root = put(tmp_path, THREE, rows((0, 0, "a")))
    (root / "instances_val2017.json").write_text(json.dumps(OBJECTS | change))
    with pytest.raises(BadInput, match=rf"instances_val2017\.json: .*{says}"):
        source(root).list()


def test_a_cut_file_of_objects_is_told(tmp_path: Path) -> None:
    root = put(tmp_path, THREE, rows((0, 0, "a")))
    (root / "instances_val2017.json").write_text(json.dumps(OBJECTS)[:-9])
    with pytest.raises(BadInput, match=r"instances_val2017\.json: not COCO's objects: it cannot be read as JSON"):
        source(root).list()


TEXT = st.text(st.characters(), max_size=6)  # lone surrogates too
IDS = st.sampled_from([0, 1, 2, 9, "1", 2.0, "text", None, True, 0.5])
VALUES = st.one_of(TEXT, TEXT, st.none(), st.floats(), st.integers(), st.lists(TEXT, max_size=3), st.just({"a": 1}))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"id": IDS, "image_id": IDS}, optional={"caption": VALUES}), max_size=12))
def test_every_caption_is_on_its_image_or_counted(annotations: list[dict[str, Any]]) -> None:
    annotations.append({"id": 5, "image_id": 0, "caption": "there"})
    with tempfile.TemporaryDirectory() as folder:
        listing = listed(Path(folder), THREE, annotations)
    expected: dict[str, Counter[str]] = {}
    counted = 0
    for row in annotations:
        found = texts_of(row["caption"]) if "caption" in row else texts_of("one")
        image = id_of(row["image_id"])
        if "caption" in row and image in (0, 1, 2):
            expected.setdefault(f"{image}", Counter()).update(found.texts)
            counted += len(found.left_out) or not found.texts
        elif "caption" not in row or image is None:
            counted += 1
        else:
            counted += len(found.left_out) + len(found.texts) or 1
    assert {key: Counter(own) for key, own in texts(listing).items()} == {k: own for k, own in expected.items() if own}
    assert len([one for one in listing.dropped if one.cause != "no caption"]) == counted
    for item in listing.items:
        assert len({caption.source_key for caption in item.captions}) == len(item.captions)
        json.dumps(item, ensure_ascii=False).encode()


def test_the_annotations_of_a_broken_zip_are_told(tmp_path: Path) -> None:
    root = put(tmp_path, THREE, rows((0, 0, "a")))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("captions_val2017.json", (root / "captions_val2017.json").read_bytes())
    data = bytearray(out.getvalue())
    data[60] ^= 0xFF
    (root / "cut.zip").write_bytes(data)
    with pytest.raises(BadInput, match=r"cut\.zip: captions_val2017\.json: corrupt archive member"):
        source(root, annotations=str(root / "cut.zip")).list()


def test_bytes_of_a_captions_file_that_are_not_utf_8_become_replacement_signs() -> None:
    content = {"images": [{"id": 1, "file_name": "é.jpg"}], "annotations": [{"id": 1, "image_id": 1, "caption": "né"}]}
    found = parse_captions(json.dumps(content, ensure_ascii=False).encode("latin-1"), "c.json")
    assert found.captions == {1: [("000000000001", "n\ufffd")]}
    assert found.names == {1: "\udce9.jpg"}
