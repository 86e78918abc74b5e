"""COCO's layout in folders, in archives and on a server. Harmful members of archives are counted, never unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from web_support import Web

from storage.errors import BadInput
from storage.sources import SourceError
from storage.sources.coco import Coco
from storage.sources.download import Policy

NAMES = {9: "000000000009.jpg", 25: "000000000025.jpg", 30: "000000000030.jpg", 42: "000000000042.jpg"}
CAPTIONS = {
    "images": [{"id": number, "file_name": name} for number, name in NAMES.items()],
    "annotations": [
        {"id": 661611, "image_id": 9, "caption": "Closeup of bins of food.\n"},
        {"id": 3, "image_id": 25, "caption": "A giraffe eating."},
        {"id": 2, "image_id": 25, "caption": "A giraffe eating."},
        {"id": 4, "image_id": 42, "caption": "An image that is missing."},
        {"id": 5, "image_id": 777, "caption": "Whose?"},
        {"id": 6, "image_id": 9, "caption": "  "},
    ],
}
PICTURES = {name: b"picture " + name.encode() for number, name in NAMES.items() if number != 42}
POLICY = Policy(allow_private_addresses=True, back_off=0.01, timeout=5)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def official(root: Path, form: str) -> Path:
    """Write COCO's official layout into a folder: as plain files, or as the two archives that COCO's site offers."""
    if form == "folder":
        (root / "annotations").mkdir(parents=True)
        (root / "val2017").mkdir()
        (root / "annotations" / "captions_val2017.json").write_text(json.dumps(CAPTIONS))
        for name, data in PICTURES.items():
            (root / "val2017" / name).write_bytes(data)
    else:
        root.mkdir()
        (root / "val2017.zip").write_bytes(zipped({f"val2017/{name}": data for name, data in PICTURES.items()}))
        captions = {"annotations/captions_val2017.json": json.dumps(CAPTIONS).encode(), "annotations/other.json": b"{}"}
        (root / "annotations_trainval2017.zip").write_bytes(zipped(captions, zipfile.ZIP_DEFLATED))
    return root


def source(path: Path | str, downloads: Path, **options: object) -> Coco:
    return Coco(str(path), downloads, identity={"at": "test"}, policy=POLICY, **options)  # type: ignore[arg-type]


def check(coco: Coco) -> None:
    listing = coco.list()
    assert [(item.source_key, [tuple(c) for c in item.captions]) for item in listing.items] == [
        ("000000000009", [("000000661611", "Closeup of bins of food.")]),
        ("000000000025", [("000000000002", "A giraffe eating."), ("000000000003", "A giraffe eating.")]),
    ]
    assert Counter(d.cause for d in listing.dropped) == {
        "no caption": 1,
        "no image of that name": 1,
        "caption of an unlisted image": 1,
        "caption is empty": 1,
    }
    read = list(coco.read([item.locator for item in listing.items]))
    assert read == [PICTURES[item.locator] for item in listing.items]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_the_official_layout_on_disk(tmp_path: Path, form: str) -> None:
    check(source(official(tmp_path / "coco", form), tmp_path / "downloads"))


def test_parts_that_lie_elsewhere(tmp_path: Path) -> None:
    root = official(tmp_path / "coco", "folder")
    captions = root / "annotations" / "captions_val2017.json"
    check(source("nowhere", tmp_path / "downloads", annotations=str(captions), images=str(root / "val2017")))


def test_the_site_is_asked_once_and_resumed(web: Web, tmp_path: Path) -> None:
    root = official(tmp_path / "coco", "zip")
    web.tear(
        "/annotations/annotations_trainval2017.zip",
        (root / "annotations_trainval2017.zip").read_bytes(),
        200,
        ETag='"1"',
    )
    web.serve("/zips/val2017.zip", (root / "val2017.zip").read_bytes())
    for _ in range(2):
        check(source(web("/"), tmp_path / "downloads"))
    assert web.counts() == {"/annotations/annotations_trainval2017.zip": 2, "/zips/val2017.zip": 1}
    assert "Range" in web.asked[1][1]


def test_a_known_sum_is_checked(web: Web, tmp_path: Path) -> None:
    root = official(tmp_path / "coco", "zip")
    data = (root / "val2017.zip").read_bytes()
    options = {"annotations": str(root / "annotations_trainval2017.zip"), "images": web.serve("/val2017.zip", data)}
    right = f"sha256:{hashlib.sha256(data).hexdigest()}"
    check(source("x", tmp_path / "right", images_digest=right, **options))
    with pytest.raises(BadInput, match=r"val2017.zip cannot be downloaded: wrong hash"):
        source("x", tmp_path / "wrong", images_digest="sha256:" + "0" * 64, **options).list()


def test_fingerprints_follow_the_images(tmp_path: Path) -> None:
    root = official(tmp_path / "coco", "folder")
    before = {item.source_key: item.fingerprint for item in source(root, tmp_path / "downloads").list().items}
    (root / "val2017" / NAMES[9]).write_bytes(b"other")
    after = {item.source_key: item.fingerprint for item in source(root, tmp_path / "downloads").list().items}
    assert before["000000000009"] != after["000000000009"]
    assert before["000000000025"] == after["000000000025"]


def hostile(tmp_path: Path, members: dict[str, bytes], names: list[str]) -> Coco:
    """A COCO source whose archive of pictures has the given members, with one caption for each file in `names`."""
    root = tmp_path / "coco"
    root.mkdir()
    captions = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "caption": "x"} for n in range(len(names))],
    }
    (root / "captions_val2017.json").write_text(json.dumps(captions))
    (root / "val2017.zip").write_bytes(zipped(members, zipfile.ZIP_DEFLATED))
    return source(root, tmp_path / "downloads", max_image_bytes=1 << 20)


def test_members_that_would_climb_out_write_nothing(tmp_path: Path) -> None:
    coco = hostile(tmp_path, {"../../../climbed.jpg": b"data", "val2017/ok.jpg": b"ok"}, ["ok.jpg", "../climbed.jpg"])
    listing = coco.list()
    assert [item.locator for item in listing.items] == ["ok.jpg"]
    assert list(coco.read(["ok.jpg"])) == [b"ok"]
    assert not list(tmp_path.parent.rglob("climbed.jpg"))


def test_a_bomb_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    coco = hostile(tmp_path, {"bomb.jpg": bytes(200 << 20), "ok.jpg": b"ok"}, ["bomb.jpg", "ok.jpg"])
    assert (tmp_path / "coco" / "val2017.zip").stat().st_size < 1 << 20
    bomb, good = coco.read(["bomb.jpg", "ok.jpg"])
    assert isinstance(bomb, SourceError)
    assert (bomb.cause, good) == ("too large", b"ok")


def test_a_corrupt_member_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    coco = hostile(tmp_path, {"a.jpg": b"a" * 1000, "b.jpg": b"fine"}, ["a.jpg", "b.jpg"])
    path = tmp_path / "coco" / "val2017.zip"
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF  # a compressed byte of the first member, whose header and name take 35 bytes
    path.write_bytes(data)
    broken, fine = coco.read(["a.jpg", "b.jpg"])
    assert isinstance(broken, SourceError)
    assert (broken.cause, fine) == ("corrupt archive member", b"fine")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda root: (root / "annotations" / "captions_val2017.json").write_text("{}"), "not COCO's captions"),
        (lambda root: (root / "annotations" / "captions_val2017.json").write_text("["), "not COCO's captions"),
        (lambda root: (root / "annotations" / "captions_val2017.json").unlink(), "pairs.annotations: none of these"),
        (lambda root: (root / "val2017").rename(root / "test"), "pairs.images: none of these is there"),
    ],
)
def test_missing_parts_and_other_layouts_are_refused(tmp_path: Path, damage, says: str) -> None:
    root = official(tmp_path / "coco", "folder")
    damage(root)
    with pytest.raises(BadInput, match=says):
        source(root, tmp_path / "downloads").list()


def test_a_wrong_subset_is_refused(tmp_path: Path) -> None:
    root = official(tmp_path / "coco", "zip")
    with pytest.raises(BadInput, match=r"holds no captions_val2014.json: is pairs.subset = 'val2014' right"):
        source(root, tmp_path / "d", subset="val2014", annotations=str(root / "annotations_trainval2017.zip")).list()
