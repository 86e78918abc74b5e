"""The samples in a tar shard: members are grouped by key, and each sample gets one image, its captions and its labels.

A sample is offered only if its archive leaves no doubt which caption belongs to which image. All other samples are
counted. Members are read at their offsets; nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from storage.sources.archive import Member, members_of, read_member
from storage.sources.captions import EMPTY, NO_TEXT, Texts, texts_of
from storage.sources.delimited import utf8
from storage.sources.files import PICTURES, is_picture, key_of, locator_of
from storage.sources.labels import NO_LABEL, label_texts

if TYPE_CHECKING:  # polars takes a fifth of a second to import
    import polars as pl

MAX_TEXT_BYTES = 1 << 20
VERSION = 3  # an index that an earlier version wrote has other columns, other samples and other texts
INDEX: dict[str, Any] = {
    "key": str,  # None for what concerns the whole shard
    "image": str,
    "offset": int,
    "size": int,
    "sha256": str,
    "texts": list[str],
    "left_out": list[list[str]],
    "labels": list[list[str]],
    "cause": str,
    "detail": str,
}
NO_IMAGE, SEVERAL, COPIES = "no image in the sample", "several images in the sample", "several samples of that key"
DOTS = "sample inside another sample"
SHOWN_NAMES = 6  # names of members in the detail of a cause
KeyEnds = Literal["first dot", "last dot"]


class Options(NamedTuple):
    """Where the members of a sample hold its image, its captions and its labels."""

    caption: str = "txt"  #: an extension, or "json:KEY"
    max_image_bytes: int = 32 << 20
    image_member: str | None = None  #: extension of the image; None for the extension of a picture
    labels: tuple[str, ...] = ()  #: extensions, or "json:KEY", beside ".cls"
    key_ends: KeyEnds | None = None


class Part(NamedTuple):
    """A member as a part of its sample."""

    member: Member
    extension: str  #: the rest of the name after the key, in lower case


Sample = list[Part]
Row = dict[str, Any]


def index_of(path: Path, options: Options) -> pl.DataFrame:
    """Return the index of an archive, one row per sample in the order of the first members, with the columns INDEX.

    Raises tarfile.TarError for an archive that is damaged or ends early, and OSError when it cannot be read.
    """
    import polars as pl

    reader = _Reader(options)
    with path.open("rb") as file:
        members, remarks = members_of(file)
        samples, inside = _samples(members, options)
        aside = _aside(samples, options)
        rows = [reader.row(file, key, sample, aside, key in inside) for key, sample in samples.items()]
    rows += [_empty_row(None) | {"cause": cause, "detail": detail} for cause, detail in remarks]
    return pl.DataFrame(rows, schema=INDEX)


def _samples(members: Sequence[Member], options: Options) -> tuple[dict[str, Sample], set[str]]:
    """Return the samples by key, in the order of their first members, and the keys of the samples inside others."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(_split(member.name, None)[0], []).append(member)
    wanted = [options.caption, options.image_member or "", *options.labels]
    suffixes = sorted({one.partition(":")[0].lower() for one in wanted} - {""}, key=len, reverse=True)
    samples: dict[str, Sample] = {}
    inside: set[str] = set()
    for key, group in groups.items():
        divided, inner = _divided(key, group, suffixes, options)
        samples |= divided
        inside |= inner
    return dict(sorted(samples.items(), key=lambda one: one[1][0].member.number)), inside


def _divided(
    key: str, group: Sequence[Member], suffixes: Sequence[str], options: Options
) -> tuple[dict[str, Sample], set[str]]:
    """Divide the members with one name up to the first dot. Returns the samples, and the keys of those inside others.

    By WebDataset's rule they are one sample. If names with more dots have captions of their own (photo.0.txt,
    photo.1.txt), and the sample "photo" has none, then the keys end at the last dot. If both have captions,
    WebDataset's rule holds, and complete pairs with more dots are samples inside the sample.
    """
    whole = {key: [Part(one, _split(one.name, None)[1].lower()) for one in group]}
    late: dict[str, Sample] = {}
    for one in group:
        stem, extension = _split(one.name, suffixes)
        late.setdefault(stem, []).append(Part(one, extension.lower()))
    if options.key_ends is not None:
        return (whole if options.key_ends == "first dot" else late), set()
    wanted = options.caption.partition(":")[0].lower()
    captioned = {stem for stem, parts in late.items() if any(part.extension == wanted for part in parts)}
    if not captioned - {key}:
        return whole, set()
    if key not in captioned:
        return late, set()
    inner = {stem for stem in captioned - {key} if any(_shows(part, options) for part in late[stem])}
    return ({stem: late[stem] for stem in [key, *sorted(inner)]} if inner else whole), inner


def _split(name: str, suffixes: Sequence[str] | None) -> tuple[str, str]:
    """Split the name of a member into its key and its extension: at the first dot, or with `suffixes` at the last.

    An extension of `suffixes` may hold dots itself.
    """
    folder, slash, base = name.rpartition("/")
    if suffixes is None:
        stem, _, extension = base.partition(".")
        return folder + slash + stem, extension
    for suffix in suffixes:
        if base.lower().endswith(f".{suffix}") and len(base) > len(suffix) + 1:
            return folder + slash + base[: -len(suffix) - 1], suffix
    stem, dot, extension = base.rpartition(".")
    return (folder + slash + stem, extension) if dot else (name, "")


def _shows(part: Part, options: Options) -> bool:
    """Whether a member may be the image of its sample."""
    if options.image_member is not None:
        return part.extension == options.image_member.lower()
    return is_picture(part.extension)


def _aside(samples: dict[str, Sample], options: Options) -> set[str]:
    """Return the extensions of pictures that lie beside the image of a sample, such as "depth.png".

    Where the image is missing, such a picture does not take its place.
    """
    found: set[str] = set()
    for sample in samples.values():
        pictures = {part.extension for part in sample if _shows(part, options)}
        if any("." not in one for one in pictures):
            found |= {one for one in pictures if "." in one}
    return found


def _copies(sample: Sample, roles: set[int]) -> list[tuple[Sample, bool]]:
    """Return the copies of a sample, whose members in `roles` count, each with whether it is whole beyond doubt.

    If each name is there once, the members are one copy wherever they lie. If a name is there twice, only neighbours
    are joined. Neighbours with a repeated name are copies of their own if all have the same names.
    """
    runs: list[Sample] = []
    last = None
    for part in sample:
        if last is None or part.member.number != last + 1:
            runs.append([])
        last = part.member.number
        if last in roles:
            runs[-1].append(part)
    kept = [part for run in runs for part in run]
    if len({part.member.name for part in kept}) == len(kept):
        return [(kept, True)]
    copies: list[tuple[Sample, bool]] = []
    for run in runs:
        pieces: list[Sample] = [[]]
        for part in run:
            if any(part.member.name == one.member.name for one in pieces[-1]):
                pieces.append([])
            pieces[-1].append(part)
        alike = len({frozenset(part.member.name for part in piece) for piece in pieces}) == 1
        copies += [(piece, True) for piece in pieces] if alike else [(run, False)]
    return [copy for copy in copies if copy[0]]


class _Reader:
    """Makes the row of a sample from its members."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.wanted, _, self.inside = options.caption.partition(":")
        self.wanted = self.wanted.lower()
        self.labels = dict.fromkeys(("cls", *options.labels))
        self.text_members = {self.wanted, *(one.partition(":")[0].lower() for one in self.labels)}

    def row(self, file: IO[bytes], key: str, sample: Sample, aside: set[str], inside: bool) -> Row:
        """Return the row of a sample. `inside`: the sample is inside another one, and only counted."""
        row = _empty_row(key_of(key))
        if inside:
            return row | {"cause": DOTS, "detail": _names(sample)}
        roles = {
            part.member.number for part in sample if part.extension in self.text_members or _shows(part, self.options)
        }
        copies = _copies(sample, roles)
        whole = [parts for parts, clear in copies if clear and self._complete(parts)]
        if not whole and (len(copies) > 1 or not copies[0][1]):
            texts = [part for part in sample if part.extension == self.wanted]
            told = [[COPIES, _names([part])] for part in texts[1:]]
            return row | {"cause": COPIES, "detail": _names(sample), "left_out": told}
        chosen = whole[-1] if whole else copies[0][0]
        taken = "a later copy is taken"
        for parts, _ in copies:
            if parts is chosen:
                taken = "an earlier copy is taken"
                continue
            alone = [[part] for part in parts if part.extension == self.wanted]
            lost = alone if len(alone) > 1 else [parts]  # a line of the ledger for each caption
            row["left_out"] += [[COPIES, f"{_names(part)}: {taken}"] for part in lost]
        self._take(file, chosen, aside, row)
        return row

    def _complete(self, parts: Sample) -> bool:
        captioned = any(part.extension == self.wanted for part in parts)
        return captioned and any(_shows(part, self.options) for part in parts)

    def _take(self, file: IO[bytes], parts: Sample, aside: set[str], row: Row) -> None:
        """Fill the row of a sample from its members."""
        pictures = [part for part in parts if _shows(part, self.options)]
        texts = [part.member for part in parts if part.extension == self.wanted]
        images = self._images(pictures, aside)
        refusals = [one.refusal for one in [*(part.member for part in images[:1]), *texts] if one.refusal]
        if refusals:
            row["cause"] = refusals[-1]
        elif len(images) != 1:
            row |= {"cause": SEVERAL if images else NO_IMAGE, "detail": _names(pictures)}
        else:
            image = images[0].member
            row |= {"image": locator_of(image.name), "offset": image.offset, "size": image.size}
            small = image.size <= self.options.max_image_bytes
            row["sha256"] = hashlib.sha256(read_member(file, image)).hexdigest() if small else f"{image.size} bytes"
        for text in texts:
            if not text.refusal:
                found = self._texts(file, text)
                row["texts"] += found.texts
                row["left_out"] += map(list, found.left_out)
        for where in self.labels:
            extension, _, inside = where.partition(":")
            for part in parts:
                if part.extension == extension.lower():
                    self._label(file, part.member, inside, inside or where, row)

    def _images(self, pictures: Sample, aside: set[str]) -> Sample:
        """Return the pictures that may be the image.

        An extension without a dot comes before "depth.png", and a photo before its raw or HEIC file.
        """
        if self.options.image_member is not None:
            return pictures
        plain = [part for part in pictures if "." not in part.extension]
        usual = [part for part in plain if part.extension in PICTURES]
        return usual or plain or [part for part in pictures if part.extension not in aside]

    def _texts(self, file: IO[bytes], text: Member) -> Texts:
        """Return the captions in a member: its whole text, its JSON, or the values at a key of its JSON."""
        name = key_of(text.name)
        if text.size > MAX_TEXT_BYTES:
            return Texts([], [("caption file too large", f"{name}: {text.size:,} bytes")])
        data = read_member(file, text)
        if not self.inside and self.wanted != "json":
            return texts_of(utf8(data))
        try:
            held = json.loads(data)
            if self.inside:
                return texts_of(held[self.inside])
            if isinstance(held, dict):
                return Texts([], [(NO_TEXT, f"{name} holds an object: json:KEY names the key of its captions")])
            return texts_of(held)
        except (ValueError, RecursionError) as error:
            return Texts([], [("caption file is not JSON", f"{name}: {error}")])
        except (KeyError, TypeError):
            return Texts([], [(EMPTY, f"{name} has no key {self.inside!r}")])

    def _label(self, file: IO[bytes], member: Member, inside: str, called: str, row: Row) -> None:
        """Add the labels in a member to the row: its text, or the values at the key `inside` of its JSON."""
        name = key_of(member.name)
        if member.refusal or member.size > MAX_TEXT_BYTES:
            cause = member.refusal and f"label {member.refusal}"
            row["left_out"].append([cause or "label file too large", f"{name}: {member.size:,} bytes"])
            return
        value: Any = read_member(file, member)
        if inside:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                row["left_out"].append(["label file is not JSON", f"{name}: {error}"])
                return
            value = value.get(inside) if isinstance(value, dict) else None
        found = label_texts(value if inside else utf8(value))
        row["labels"] += [[called, label] for label, _ in found if label]
        row["left_out"] += [[NO_LABEL, f"{name}: {wrong}"] for label, wrong in found if not label]


def _empty_row(key: str | None) -> Row:
    return dict.fromkeys(INDEX) | {"key": key, "texts": [], "left_out": [], "labels": [], "detail": ""}


def _names(parts: Sample) -> str:
    """Return the names of members for the ledger, without their folders."""
    names = [key_of(part.member.name.rpartition("/")[2]) for part in parts]
    return ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
