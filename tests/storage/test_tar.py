"""Samples of a tar: an image has its own captions or is counted, in whatever order and by whatever names they come."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.sources import Dropped, Listing
from storage.sources.tar import Options
from storage.sources.webdataset import WebDataset

Members = Sequence[tuple[str, bytes]]


def tarred(members: Members, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def opened(data: bytes, folder: Path, **options: Any) -> WebDataset:
    (folder / "s.tar").write_bytes(data)
    return WebDataset([str(folder / "s.tar")], folder / "downloads", identity={}, options=Options(**options))


def read(members: Members, folder: Path, **options: Any) -> tuple[dict[str, tuple[bytes, list[str]]], list[Dropped]]:
    """Return {key: (image, captions)} of the items, without the shard's name, and what was left out."""
    reader = opened(tarred(members), folder, **options)
    listing = reader.list()
    images = reader.read([item.locator for item in listing.items])
    read_back = zip(listing.items, images, strict=True)
    return {i.source_key[2:]: (image, [c.text for c in i.captions]) for i, image in read_back}, listing.dropped  # type: ignore[misc]


def named(*names: str) -> Members:
    """Members whose content is their name."""
    return [(name, name.encode()) for name in names]


def causes(dropped: Sequence[Dropped]) -> Counter[str]:
    return Counter(f"{one.source_key[2:]}: {one.cause}" for one in dropped)


PLAIN: Members = [
    ("./notes.md", b"n"), ("0001.jpg", b"one"), ("0001.txt", b" a cat\n"), ("0001.json", b'{"caption": "k"}'),
    ("0002.txt", "ein Hündchen".encode()), ("0002.PNG", b"two"),
    ("sub/0001.seg.webp", b"three"), ("sub/0001.txt", b"a cow\nin a field"),
    ("0009.txt", b"no image"), ("0010.jpg", b"ten"), ("ä.jpeg", b"five"), ("ä.TXT", b"\xef\xbb\xbfumlaut"),
    ("0003.jpg", b"six"), ("0003.seg.png", b"mask"), ("0003.txt", b"a cat"),
    ("0004.jpg", bytes(200)), ("0004.txt", b"large"),
]  # fmt: skip
#: (key, locator, key of the caption, text, fingerprint) as version 0.1 listed this archive
PINNED = [
    ("s/0001", '["s", "0001.jpg"]', "s/0001#51e467415607", "a cat", "9ea53628f8dff458"),
    ("s/0002", '["s", "0002.PNG"]', "s/0002#8a9226883065", "ein Hündchen", "81694774a58b7c3e"),
    ("s/sub/0001", '["s", "sub/0001.seg.webp"]', "s/sub/0001#fd3b0fd5fa7d", "a cow\nin a field", "85c3fb1ce4aaf137"),
    ("s/ä", '["s", "ä.jpeg"]', "s/ä#46265dd2e707", "umlaut", "93c30babaa55a65d"),
    ("s/0003", '["s", "0003.jpg"]', "s/0003#51e467415607", "a cat", "c16a8c516570ec3a"),
    ("s/0004", '["s", "0004.jpg"]', "s/0004#d35c416a85b8", "large", "1c30e4ae76032fb7"),
]


def test_the_listing_of_a_plain_archive_is_that_of_the_first_version(tmp_path: Path) -> None:
    """Another key, locator or fingerprint would acquire and embed the images of finished studies again."""
    listing = opened(tarred(PLAIN), tmp_path, max_image_bytes=100).list()
    listed = [(i.source_key, i.locator, *i.captions[0], i.fingerprint) for i in listing.items]
    assert listed == PINNED
    assert listing.dropped == [
        Dropped("s/./notes", "no image in the sample"),
        Dropped("s/0009", "no image in the sample"),
        Dropped("s/0010", "no caption"),
    ]


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    members = named("._a.jpg", "a.jpg", "._a.txt", "a.txt", "d/._b.jpg", "__MACOSX/d/b.jpg", "d/b.jpg", "d/b.txt")
    items, dropped = read([*members, (".DS_Store", b"x")], tmp_path)
    assert items == {"a": (b"a.jpg", ["a.txt"]), "d/b": (b"d/b.jpg", ["d/b.txt"])}
    assert dropped == []


def test_members_of_a_sample_may_lie_apart(tmp_path: Path) -> None:
    items, dropped = read(named("b.jpg", "a.jpg", "c.jpg", "a.txt", "b.txt", "d.txt"), tmp_path)
    assert items == {"b": (b"b.jpg", ["b.txt"]), "a": (b"a.jpg", ["a.txt"])}
    assert causes(dropped) == {"c: no caption": 1, "d: no image in the sample": 1}


PAIR, INSIDE = (b"p.0.jpg", ["p.0.txt"]), "sample inside another sample"


@pytest.mark.parametrize(
    ("names", "items", "left"),
    [
        (["p.0.jpg", "p.0.txt", "p.1.jpg"], {"p.0": PAIR}, {"p.1: no caption": 1}),
        (["p.0.jpg", "p.0.txt", "p.1.txt"], {"p.0": PAIR}, {"p.1: no image in the sample": 1}),
        (["p.0.jpg", "p.1.txt"], {}, {"p.0: no caption": 1, "p.1: no image in the sample": 1}),
        (["p.0.jpg", "p.0.txt", "p.jpg"], {"p.0": PAIR}, {"p: no caption": 1}),
        (["p.0.jpg", "p.0.txt", "p.jpg", "p.txt"], {"p": (b"p.jpg", ["p.txt"])}, {f"p.0: {INSIDE}": 1}),
        (["p.0.jpg", "p.0.txt", "p.txt"], {}, {f"p.0: {INSIDE}": 1, "p: no image in the sample": 1}),
        (["p.0.jpg", "p.txt"], {"p": (b"p.0.jpg", ["p.txt"])}, {}),
        (["p.jpg", "p.txt", "p.de.txt"], {"p": (b"p.jpg", ["p.txt"])}, {}),
        (["v1.2/p.0.jpg", "v1.2/p.0.txt"], {"v1.2/p.0": (b"v1.2/p.0.jpg", ["v1.2/p.0.txt"])}, {}),
    ],
)  # fmt: skip
def test_dots_in_names(tmp_path: Path, names: list[str], items: dict[str, Any], left: dict[str, int]) -> None:
    found, dropped = read(named(*names), tmp_path)
    assert found == items
    assert causes(dropped) == left


def test_the_study_says_where_keys_end(tmp_path: Path) -> None:
    members = named("p.jpg", "p.txt", "p.0.jpg", "p.0.txt", "q.0.jpg", "q.0.txt")
    items, dropped = read(members, tmp_path, key_ends="last dot")
    assert items == {key: (f"{key}.jpg".encode(), [f"{key}.txt"]) for key in ("p", "p.0", "q.0")}
    assert dropped == []
    items, dropped = read(members, tmp_path, key_ends="first dot")
    assert items == {"p": (b"p.jpg", ["p.txt"])}
    assert causes(dropped) == {"q: no image in the sample": 1}  # since q.0.jpg is like p.0.jpg, which is beside p.jpg


def test_a_caption_whose_extension_has_a_dot(tmp_path: Path) -> None:
    members = named("a.jpg", "a.txt", "a.en.txt", "p.0.jpg", "p.0.en.txt", "p.0.txt")
    items, _ = read(members, tmp_path, caption="en.txt")
    assert items == {"a": (b"a.jpg", ["a.en.txt"]), "p.0": (b"p.0.jpg", ["p.0.en.txt"])}


def test_the_image_is_the_picture_without_a_dot_in_its_extension(tmp_path: Path) -> None:
    members = named(
        "0.depth.png", "0.jpg", "0.txt", "1.jpg", "1.png", "1.txt", "2.a.jpg", "2.b.jpg", "2.txt", "3.depth.png",
        "3.txt", "4.other.png", "4.txt",
    )  # fmt: skip
    items, dropped = read(members, tmp_path)
    assert items == {"0": (b"0.jpg", ["0.txt"]), "4": (b"4.other.png", ["4.txt"])}
    assert [one for one in dropped if one.source_key != "s/3"] == [
        Dropped("s/1", "several images in the sample", "1.jpg, 1.png"),
        Dropped("s/2", "several images in the sample", "2.a.jpg, 2.b.jpg"),
    ]
    assert Dropped("s/3", "no image in the sample", "3.depth.png") in dropped


@pytest.mark.parametrize(("member", "key"), [("jpg", "0"), ("depth.png", "0"), ("DEPTH.png", "0"), ("bin", "1")])
def test_the_study_chooses_the_image(tmp_path: Path, member: str, key: str) -> None:
    members = named("0.jpg", "0.depth.png", "0.txt", "1.bin", "1.txt")
    items, dropped = read(members, tmp_path, image_member=member)
    assert items == {key: (f"{key}.{member.lower()}".encode(), [f"{key}.txt"])}
    assert causes(dropped) == {f"{1 - int(key)}: no image in the sample": 1}


def test_a_photo_comes_before_another_form_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extensions that count as pictures since a later version do not compete with those that always did."""
    from storage.sources import tar

    monkeypatch.setattr(tar, "is_picture", lambda name: name.rpartition(".")[2] in ("heic", "jpg"))
    items, _ = read(named("0.heic", "0.jpg", "0.txt", "1.heic", "1.txt"), tmp_path)
    assert items == {"0": (b"0.jpg", ["0.txt"]), "1": (b"1.heic", ["1.txt"])}


COPY, LATER, EARLIER = "several samples of that key", "a later copy is taken", "an earlier copy is taken"
OTHER = [("z.jpg", b"z"), ("z.txt", b"z")]
A, B = [("a.jpg", b"A"), ("a.txt", b"A")], [("a.jpg", b"B"), ("a.txt", b"B")]


@pytest.mark.parametrize(
    ("members", "kept", "details"),
    [
        ([*A, *OTHER, *B], b"B", [f"a.jpg, a.txt: {LATER}"]),
        ([*A, *B, *OTHER], b"B", [f"a.jpg, a.txt: {LATER}"]),
        ([*A, *OTHER, B[0]], b"A", [f"a.jpg: {EARLIER}"]),
        ([*A, *OTHER, B[1]], b"A", [f"a.txt: {EARLIER}"]),
        ([A[0], *OTHER, *B], b"B", [f"a.jpg: {LATER}"]),
        ([A[0], B[0], A[1], B[1], *OTHER], None, ["a.jpg, a.jpg, a.txt, a.txt", "a.txt"]),
        ([*A, B[1], *OTHER], None, ["a.jpg, a.txt, a.txt", "a.txt"]),
        ([A[0], *OTHER, A[1], ("y.md", b""), B[0], ("x.md", b""), B[1]], None, ["a.jpg, a.txt, a.jpg, a.txt", "a.txt"]),
    ],
)  # fmt: skip
def test_a_sample_that_is_there_twice_is_never_mixed(
    tmp_path: Path, members: Members, kept: bytes | None, details: list[str]
) -> None:
    items, dropped = read(members, tmp_path)
    expected = {"z": (b"z", ["z"])} | ({"a": (kept, [kept.decode()])} if kept else {})
    assert items == expected
    assert sorted(one.detail for one in dropped if one.cause == COPY) == details


def test_copies_with_a_number_are_samples_of_their_own(tmp_path: Path) -> None:
    items, _ = read(named("a.jpg", "a.txt", "a(1).jpg", "a(1).txt"), tmp_path)
    assert items == {"a": (b"a.jpg", ["a.txt"]), "a(1)": (b"a(1).jpg", ["a(1).txt"])}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_names_that_are_not_utf8(tmp_path: Path, form: int) -> None:
    name = "long/" * 60 + "a"
    bad = b"caf\xe9".decode(errors="surrogateescape")
    members = [*named(f"{name}.jpg", f"{name}.txt"), (f"{bad}.jpg", b"image"), (f"{bad}.txt", b"caf\xe9")]
    reader = opened(tarred(members, form), tmp_path)
    listing = reader.list()
    captions = [(item.source_key, item.captions[0].text) for item in listing.items]
    assert captions == [(f"s/{name}", f"{name}.txt"), ("s/caf\\xe9", "caf�")]
    assert list(reader.read([item.locator for item in listing.items])) == [f"{name}.jpg".encode(), b"image"]
    assert json.dumps([listing.items, listing.dropped], ensure_ascii=False).encode()


def test_captions_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"a"), ("a.txt", bytes((1 << 20) + 1)), ("b.jpg", b"b"), ("b.txt", b" \n"),
        ("c.jpg", b"c"), ("c.txt", b'["x", "y"]'),
    ]  # fmt: skip
    items, dropped = read(members, tmp_path)
    assert items == {"c": (b"c", ["x", "y"])}
    assert causes(dropped) == {
        "a: caption file too large": 1, "a: no caption": 1, "b: caption is empty": 1, "b: no caption": 1,
    }  # fmt: skip
    files = {"a.json": b"[1", "b.json": b'{"text": "x"}', "c.json": b'{"caption": 7}', "d.json": b'{"caption": "ok"}'}
    pictures = [(f"{key}.jpg", key.encode()) for key in "abcd"]
    items, dropped = read([*pictures, *files.items()], tmp_path, caption="json:caption")
    assert items == {"d": (b"d", ["ok"])}
    unread = {one.source_key: (one.cause, one.detail) for one in dropped if one.cause != "no caption"}
    assert unread["s/a"][0] == "caption file is not JSON"
    assert unread["s/b"] == ("caption is empty", "b.json has no key 'caption'")
    assert unread["s/c"] == ("caption is no text", "int 7")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_texts_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-16", "utf-8-sig") else "\ufeff"
    text, label = (f"{mark}{word}\r\n".encode(encoding) for word in ("un café", "chat"))
    (tmp_path / "s.tar").write_bytes(tarred([("0.jpg", b"0"), ("0.txt", text), ("0.cls", label)]))
    listing = opened((tmp_path / "s.tar").read_bytes(), tmp_path).list()
    assert [[caption.text for caption in item.captions] for item in listing.items] == [["un café"]]
    assert [value for _, _, value in listing.labels] == ["chat"]


def test_a_caption_file_of_json_holds_texts_or_says_which_key_to_name(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"a"), ("a.json", b'"a cat"'), ("b.jpg", b"b"), ("b.json", b'["x", "y"]'),
        ("c.jpg", b"c"), ("c.json", b'{"caption": "z"}'), ("d.jpg", b"d"), ("d.json", b"a cat"),
    ]  # fmt: skip
    items, dropped = read(members, tmp_path, caption="json")
    assert items == {"a": (b"a", ["a cat"]), "b": (b"b", ["x", "y"])}
    told = {one.source_key: (one.cause, one.detail) for one in dropped if one.cause != "no caption"}
    assert told["s/c"] == ("caption is no text", "c.json holds an object: json:KEY names the key of its captions")
    assert told["s/d"][0] == "caption file is not JSON"


def test_labels(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"a"), ("a.txt", b"a"), ("a.cls", b" 7\n"), ("a.cat.txt", b"dog"), ("a.json", b'{"of": ["x", {}]}'),
        ("b.cls", b"8"), ("b.json", b"{"), ("c.cls", bytes((1 << 20) + 1)), ("d.json", b"[]"),
    ]  # fmt: skip
    listing = opened(tarred(members), tmp_path, labels=("json:of", "cat.txt")).list()
    assert sorted(tuple(label) for label in listing.labels) == [
        ("s/a", "cat.txt", "dog"), ("s/a", "cls", "7"), ("s/a", "of", "x"), ("s/b", "cls", "8"),
    ]  # fmt: skip
    assert {(one.source_key, one.cause) for one in listing.dropped if "label" in one.cause} == {
        ("s/a", "label is no text"), ("s/b", "label file is not JSON"), ("s/c", "label file too large"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_are_counted(tmp_path: Path, kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("ok.jpg", "ok.txt", "a.txt", "b.jpg", "c.jpg", "c.txt"):
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"xx"))
        for name in ("a.jpg", "b.txt", "c.depth.png"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "ok.jpg"
            archive.addfile(link)
    listing = opened(out.getvalue(), tmp_path).list()
    assert [item.source_key for item in listing.items] == ["s/ok", "s/c"]
    assert causes(listing.dropped) == {"a: not a regular file": 1, "b: not a regular file": 1}


WHOLE = tarred([*named("a.jpg", "a.txt", "b.jpg"), ("b.txt", b"t" * 1500)])


def test_empty_archives_are_counted(tmp_path: Path) -> None:
    assert opened(tarred([]), tmp_path).list() == Listing([], [Dropped("s", "empty shard", "s.tar")], [])
    assert causes(opened(tarred(named("a.md", "b.csv")), tmp_path).list().dropped) == {
        "a: no image in the sample": 1, "b: no image in the sample": 1,
    }  # fmt: skip


@pytest.mark.parametrize("length", [100, 600, 1100, 512 * 5, 512 * 8, 512 * 9 - 1])
def test_an_archive_that_ends_early_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(BadInput, match=r"s.tar is no readable tar \(.+\): it may be cut short"):
        opened(WHOLE[:length], tmp_path).list()


def test_an_archive_without_its_end_is_counted(tmp_path: Path) -> None:
    """It may have been cut between two members, or its writer was never closed."""
    listing = opened(WHOLE[: 512 * 4], tmp_path).list()
    assert [item.source_key for item in listing.items] == ["s/a"]
    assert listing.dropped == [Dropped("s", "archive without an end", "it may be cut short after byte 2,048")]


def test_a_damaged_header_is_refused_and_a_negative_size_does_not_hang(tmp_path: Path) -> None:
    torn = bytearray(WHOLE)
    torn[1024:1030] = b"\xff" * 6
    with pytest.raises(BadInput, match="the header at byte 1,024 is damaged"):
        opened(bytes(torn), tmp_path).list()
    info = tarfile.TarInfo("a.jpg")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 10 + b"\xfc\x00"  # the size -1024, in base 256
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    with pytest.raises(BadInput, match="is damaged"):
        opened(WHOLE[:1024] + bytes(head) + WHOLE[1024:], tmp_path).list()


def test_archives_one_after_the_other_and_junk(tmp_path: Path) -> None:
    second = tarred([("c.jpg", b"c"), ("c.txt", b"c")])
    reader = opened(WHOLE + second, tmp_path)
    assert [item.source_key for item in reader.list().items] == ["s/a", "s/b", "s/c"]
    assert list(reader.read([reader.list().items[2].locator])) == [b"c"]
    listing = opened(WHOLE + b"junk" * 200, tmp_path).list()
    assert len(listing.items) == 2
    assert listing.dropped == [Dropped("s", "data after the end of the archive", f"from byte {len(WHOLE):,}")]


PLAIN_STEMS = ["a", "b", "ü", "d/a", "e(1)"]
DOTTED_STEMS = ["p.0", "p.1", "q.x.y", "d/p.0"]
NESTED_STEMS = ["a.0", "a.0.1", "b.x", "p"]
PARTS = st.sampled_from(
    [("jpg", "txt"), ("txt", "jpg"), ("png", "txt"), ("jpg",), ("txt",), ("depth.png", "jpg", "txt")]
)


def content(stem: str, extension: str, number: int) -> bytes:
    return f"{stem} {number}".encode() if extension != "depth.png" else b"depth"


def check_pairs(members: Members, options: dict[str, Any]) -> None:
    """Each image has the caption of its own sample, and each caption comes out or is counted with its key."""
    with tempfile.TemporaryDirectory() as folder:
        items, dropped = read(members, Path(folder), **options)
    out = set()
    for image, captions in items.values():
        assert [image.decode()] == captions
        out.add(captions[0])
    written = {data.decode() for name, data in members if name.endswith(".txt") and "._" not in name}
    counted = {one.source_key[2:] for one in dropped}
    assert {text.rpartition(" ")[0] for text in written - out} <= counted
    assert len(written - out) <= len(dropped)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_samples_in_any_order_come_out_whole_or_are_counted(data: st.DataObject) -> None:
    last = data.draw(st.booleans())
    stems = data.draw(st.sets(st.sampled_from(PLAIN_STEMS + DOTTED_STEMS + (NESTED_STEMS if last else []))))
    members = []
    for number, stem in enumerate(sorted(stems)):
        extensions = data.draw(PARTS)
        # A sample with a dot in its name has no picture with a dot in its extension, which would be another sample.
        extensions = [e for e in extensions if e != "depth.png" or not ("." in stem or last)]
        members += [(f"{stem}.{extension}", content(stem, extension, number)) for extension in extensions]
    members += [
        (f"._{name}", b"\0\5\x16\7") for name, _ in data.draw(st.lists(st.sampled_from(members or [("x", b"")])))
    ]
    members = data.draw(st.permutations(members))
    check_pairs(members, {"key_ends": "last dot"} if last else {})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_complete_samples_of_any_names_are_never_mixed(data: st.DataObject) -> None:
    stems = data.draw(st.sets(st.sampled_from(PLAIN_STEMS + DOTTED_STEMS + NESTED_STEMS)))
    members = [
        (f"{stem}.{extension}", content(stem, extension, number))
        for number, stem in enumerate(sorted(stems))
        for extension in ("jpg", "txt")
    ]
    check_pairs(data.draw(st.permutations(members)), {})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_samples_that_were_appended_again_are_never_mixed(data: st.DataObject) -> None:
    members = []
    for turn in range(2):
        for stem in data.draw(st.permutations(["a", "b", "p.0", "p.1"])):
            extensions = data.draw(PARTS) if turn else ("jpg", "txt")
            extensions = [e for e in extensions if e != "depth.png"]
            members += [(f"{stem}.{extension}", content(stem, extension, turn)) for extension in extensions]
    check_pairs(members, {})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=20), st.integers(0, len(WHOLE)))
def test_a_damaged_archive_is_read_or_refused_in_words(place: int, junk: bytes, cut: int) -> None:
    data = WHOLE[:place] + junk + WHOLE[place + len(junk) :]
    with tempfile.TemporaryDirectory() as folder:
        reader = opened(data[: max(cut, place + 1)], Path(folder))
        said, images = "", []
        try:
            images = list(reader.read([item.locator for item in reader.list().items]))
        except BadInput as error:
            said = str(error)
    assert "s.tar is no readable tar" in said if said else all(isinstance(image, bytes) for image in images)
