"""The emoji source, on small tarballs that the tests write. One test uses the real npm."""

import base64
import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from storage.errors import BadInput
from storage.sources import SourceError
from storage.sources.npm_emoji import NpmEmoji, captions_of, group_of, normalise

IMAGES, METADATA = "emoji-pictures@1.0.0", "emoji-labels@2.0.0"


def picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (4, 4), colour).save(out, "webp", lossless=True)
    return out.getvalue()


def put(downloads: Path, package: str, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """Write a package's tarball as npm downloads it, and the tarball's checksum in a file beside it."""
    downloads.mkdir(exist_ok=True)
    path = downloads / f"{package.replace('@', '-')}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    total = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    path.with_name(path.name + ".integrity").write_text(f"sha512-{total}\n")
    return path


ROWS = [
    {"hexcode": "1F600", "label": "grinning face", "tags": ["grin", "Grinning Face", "smile"]},
    {"hexcode": "2764-FE0F", "label": "red heart", "tags": ["love"]},
    {"hexcode": "1F44B", "label": "waving hand", "tags": ["bye"]},
    {"hexcode": "1F1E6", "label": "regional indicator A"},
]
FILES = {
    "package/assets/1f600.webp": picture("yellow"),
    "package/assets/2764-fe0f.webp": picture("red"),
    "package/assets/2764.webp": picture("darkred"),
    "package/assets/1f44b.webp": picture("gold"),
    "package/assets/1f44b-1f3fb.webp": picture("wheat"),
    "package/assets/1f999.webp": picture("white"),
    "package/package.json": b"{}",
}


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    put(tmp_path / "downloads", IMAGES, FILES)
    put(tmp_path / "downloads", METADATA, {"package/en/data.json": json.dumps(ROWS).encode()})
    return tmp_path / "downloads"


@pytest.fixture
def no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def source(downloads: Path, limit: int | None = None) -> NpmEmoji:
    return NpmEmoji(downloads, IMAGES, METADATA, limit)


def test_joins_pictures_and_labels_on_the_hexcode(downloads: Path, no_npm: None) -> None:
    items = source(downloads).list().items
    assert [i.source_key for i in items] == ["1f44b", "1f600", "2764"]
    assert [tuple(c) for c in items[1].captions] == [
        ("1f600/label", "grinning face"),
        ("1f600/tags", "grinning face (grin, smile)"),
    ]


def test_counts_add_up_with_what_the_packages_hold(downloads: Path, no_npm: None) -> None:
    listing = source(downloads).list()
    causes = Counter(d.cause for d in listing.dropped)
    assert causes == {
        "skin-tone variant": 1,
        "second file of the same emoji": 1,
        "no label in the metadata": 1,
        "no image in the package": 1,
    }
    pictures = sum(name.endswith(".webp") for name in FILES)
    assert len(listing.items) + len(listing.dropped) - causes["no image in the package"] == pictures
    assert len(listing.items) + causes["no image in the package"] == len(ROWS)


def test_reads_bytes_in_the_order_asked_for(downloads: Path, no_npm: None) -> None:
    names = ["package/assets/2764.webp", "package/assets/nothing.webp", "package/assets/1f600.webp"]
    first, missing, last = source(downloads).read(names)
    assert (first, last) == (FILES[names[0]], FILES[names[2]])
    assert isinstance(missing, SourceError)
    assert missing.cause == "not in the package"


def test_limit_keeps_the_first_by_key_and_drops_nothing_more(downloads: Path, no_npm: None) -> None:
    whole, two = source(downloads).list(), source(downloads, limit=2)
    assert two.list().items == whole.items[:2]
    assert two.list().dropped == whole.dropped
    assert two.identity == {"images": IMAGES, "metadata": METADATA, "limit": 2}
    assert "limit" not in source(downloads).identity


def test_fingerprint_changes_with_bytes_and_with_captions_only(downloads: Path, no_npm: None) -> None:
    before = {i.source_key: i.fingerprint for i in source(downloads).list().items}
    put(downloads, IMAGES, FILES | {"package/assets/1f600.webp": picture("orange")})
    rows = [*ROWS[:1], {"hexcode": "2764-FE0F", "label": "red heart", "tags": ["romance"]}, *ROWS[2:]]
    put(downloads, METADATA, {"package/en/data.json": json.dumps(rows).encode()})
    after = {i.source_key: i.fingerprint for i in source(downloads).list().items}
    assert {key for key in before if before[key] != after[key]} == {"1f600", "2764"}


def test_members_out_of_the_package_and_links_are_refused(downloads: Path, no_npm: None) -> None:
    bad = {"package/assets/../../../../1f601.webp": picture("red"), "/package/assets/1f602.webp": picture("red")}
    put(downloads, IMAGES, FILES | bad, links={"package/assets/1f603.webp": "/etc/hostname"})
    reader = source(downloads)
    causes = Counter(d.cause for d in reader.list().dropped)
    assert causes["path out of the package"] == 2
    assert causes["not a regular file"] == 1
    assert [i.source_key for i in reader.list().items] == ["1f44b", "1f600", "2764"]
    for name in [*bad, "package/assets/1f603.webp"]:
        assert isinstance(next(reader.read([name])), SourceError)


def test_oversized_members_are_refused(downloads: Path, no_npm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sources.npm_emoji.MAX_IMAGE_BYTES", 1)
    listing = source(downloads).list()
    assert listing.items == []
    assert Counter(d.cause for d in listing.dropped)["too large"] == 6


def test_a_bomb_is_not_unpacked(downloads: Path, no_npm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sources.npm_emoji.MAX_UNPACKED_BYTES", 100)
    with pytest.raises(BadInput, match="unpacks to more than"):
        source(downloads).list()


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b[:50] + b"x" + b[51:], lambda b: b""])
def test_a_corrupt_tarball_is_noticed(downloads: Path, no_npm: None, damage) -> None:
    tarball = downloads / "emoji-pictures-1.0.0.tgz"
    tarball.write_bytes(damage(tarball.read_bytes()))
    with pytest.raises(BadInput, match=r"install Node\.js with npm"):  # the tarball must be fetched again with npm
        source(downloads).list()


def test_without_npm_says_what_to_install_and_where_a_package_can_be_put(tmp_path: Path, no_npm: None) -> None:
    folder = re.escape(f"{tmp_path / 'downloads'}, the folder of the store's downloads")
    fetch = r"npm-emoji needs npm to fetch @lobehub/fluent-emoji-3d@1\.1\.0: install Node\.js with npm"
    with pytest.raises(BadInput, match=rf"{fetch}, or put lobehub-fluent-emoji-3d-1\.1\.0\.tgz into {folder}$"):
        NpmEmoji(tmp_path / "downloads").list()
    beside = r"its digest \(sha512-BASE64\) into emoji-pictures-1\.0\.0\.tgz\.integrity beside it$"
    with pytest.raises(BadInput, match=rf"put emoji-pictures-1\.0\.0\.tgz into {folder}, and {beside}"):
        source(tmp_path / "downloads").list()


def test_a_failing_npm_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error 404 no such package' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BadInput, match=r"npm pack emoji-pictures@1\.0\.0 failed: npm error 404 no such package"):
        source(tmp_path / "downloads").list()
    assert list((tmp_path / "downloads").iterdir()) == []


@pytest.mark.parametrize("package", ["emoji", "emoji@latest", "--help@1.0.0", "../x@1.0.0", "emoji@^1.0.0"])
def test_packages_are_named_exactly(tmp_path: Path, package: str) -> None:
    with pytest.raises(BadInput, match="NAME@VERSION"):
        NpmEmoji(tmp_path, images=package)


def test_metadata_of_another_shape_is_bad_input(downloads: Path, no_npm: None) -> None:
    put(downloads, METADATA, {"package/en/data.json": b'[{"label": "no hexcode"}]'})
    with pytest.raises(BadInput, match="not a list of hexcode, label, tags"):
        source(downloads).list()


NAMES = {
    "groups": [{"key": "smileys-emotion", "message": "smileys & emotion", "order": 0}],
    "subgroups": [
        {"key": "face-smiling", "message": "smiling", "order": 0},
        {"key": "face-other", "message": "a wrong number", "order": 0},
    ],
}
KEYS = {"groups": {"0": "smileys-emotion"}, "subgroups": {"0": "face-smiling"}}


@pytest.mark.parametrize(
    ("messages", "group", "subgroup"),
    [(json.dumps(NAMES).encode(), "smileys & emotion", "smiling"), (b"{", "0", "0"), (None, "0", "0")],
)
def test_groups_are_labels_and_change_nothing_else(
    downloads: Path, no_npm: None, messages: bytes | None, group: str, subgroup: str
) -> None:
    before = source(downloads).list()
    rows = [ROWS[0] | {"group": 0, "subgroup": 0}, ROWS[1] | {"group": 8, "subgroup": None}, *ROWS[2:]]
    members = {"package/en/data.json": json.dumps(rows).encode()}
    members |= {"package/meta/groups.json": json.dumps(KEYS).encode()}
    put(downloads, METADATA, members | ({} if messages is None else {"package/en/messages.json": messages}))
    after = source(downloads).list()
    assert (after.items, after.dropped, list(before.labels)) == (before.items, before.dropped, [])
    assert [tuple(label) for label in after.labels] == [
        ("1f600", "group", group),
        ("1f600", "subgroup", subgroup),
        ("2764", "group", "8"),
    ]


@pytest.mark.parametrize("label", [None, 7, ["a"]])
def test_labels_that_are_no_texts_are_bad_input(downloads: Path, no_npm: None, label: object) -> None:
    put(downloads, METADATA, {"package/en/data.json": json.dumps([ROWS[0] | {"label": label}]).encode()})
    with pytest.raises(BadInput, match="not a list of hexcode, label, tags"):
        source(downloads).list()


@pytest.mark.parametrize(
    ("hexcode", "group"),
    [
        ("1f600", "1f600"),
        ("1f44b-1f3fb", "1f44b"),  # waving hand: light skin tone
        ("1f469-1f3fb-200d-1f692", "1f469-200d-1f692"),  # woman firefighter: light skin tone
        ("2764-200d-1f525", "2764-200d-1f525"),  # heart on fire
        ("1f468", "1f468"),
        ("0023-20e3", "0023-20e3"),
        ("1f3fb", "1f3fb"),
    ],
)
def test_group_is_the_hexcode_without_modifiers(hexcode: str, group: str) -> None:
    assert group_of(hexcode) == group


def test_hexcodes_are_compared_in_one_notation() -> None:
    assert normalise("2764-FE0F-200D-1F525") == "2764-200d-1f525"
    assert normalise("23-fe0f-20e3") == normalise("0023-20E3") == "0023-20e3"


def test_an_emoji_without_further_tags_has_one_caption() -> None:
    assert [c.text for c in captions_of("1f48d", "ring", ["Ring", " "])] == ["ring"]


def test_npm_fetches_the_default_metadata_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, IMAGES, FILES)
    tarball = tmp_path / "emojibase-data-17.0.0.tgz"
    tarball.write_bytes(b"half a downl")
    first = NpmEmoji(tmp_path, images=IMAGES).list()
    assert first.items[1].captions[0].text == "grinning face"
    monkeypatch.setenv("PATH", "")  # both tarballs are verified, so neither npm nor the network is needed
    assert NpmEmoji(tmp_path, images=IMAGES).list() == first
