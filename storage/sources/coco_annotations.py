"""The content of COCO's JSON files: the captions of captions_*.json and the categories of instances_*.json.

Ids are numbers or texts. A row without a usable value is counted with its cause.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from storage.errors import BadInput
from storage.sources import Caption, Dropped, Label
from storage.sources.captions import EMPTY, captions_of, clean, left_out, shown, texts_of
from storage.sources.files import key_of
from storage.sources.labels import NO_LABEL, label_texts

Id = int | str
NO_OBJECT, NO_ID, NO_NAME = "entry is no JSON object", "image without an id", "image without a file name"
NO_IMAGE_ID, UNLISTED = "annotation without an image id", "caption of an unlisted image"
NO_CAPTION_KEY, NO_CATEGORY = "annotation without the key caption", "label of an unlisted category"
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,4000}\s*", re.ASCII)
KEYS_SHOWN = 8


class Captioned(NamedTuple):
    """The content of a captions file."""

    names: dict[Id, str]  #: {image id: file name}
    captions: dict[Id, list[Caption]]  #: captions of listed images
    dropped: list[Dropped]  #: rows that give no image or no caption, and values that are no captions


class _Row(NamedTuple):
    """An annotation of one image."""

    number: Id | None  #: id of the annotation
    caption: Any


def sort_key(number: Id) -> tuple[bool, int, str]:
    """Return the place of an id in the order of ids: numbers first, then texts."""
    return (True, 0, number) if isinstance(number, str) else (False, number, "")


def key_of_id(number: Id) -> str:
    """Return the key of an image or caption: its number in 12 digits, as in COCO's file names, or its text."""
    return number if isinstance(number, str) else f"{number:012d}"


def id_of(value: Any) -> Id | None:
    """Return an id: a whole number (12, 12.0 and "12" are one id) or a text. None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    if isinstance(value, str):
        return int(value) if _NUMBER.fullmatch(value) else clean(value).strip() or None
    return None


def parse_captions(data: bytes, where: str) -> Captioned:
    """Return the images and captions of a captions file. `where` names the file in errors.

    The key of a caption is its id in COCO. Captions of an image whose ids are missing or repeat, and the captions of
    one list, are told apart by their texts. Raises BadInput for a file that is not COCO's captions, and for one image
    id with several file names.
    """
    content = _content(data, where, "captions", ("images", "annotations"))
    rows = [row for row in content["annotations"] if isinstance(row, dict)]
    if rows and not any("caption" in row for row in rows):
        keys = ", ".join(map(clean, list(rows[0])[:KEYS_SHOWN]))
        raise BadInput(
            f"{where}: not COCO's captions: no annotation has the key caption, the first has {keys}. This looks like a "
            "file of objects (instances_*.json): set pairs.annotations to captions_<subset>.json"
        )
    dropped: list[Dropped] = []
    names = _names(content["images"], where, dropped)
    captions: dict[Id, list[Caption]] = {}
    for image, own in _rows_by_image(content["annotations"], names, dropped).items():
        captions[image] = _captions(image, own, dropped)
    return Captioned(names, captions, dropped)


def parse_categories(data: bytes, where: str, names: dict[Id, str]) -> tuple[list[Label], list[Dropped]]:
    """Return the categories and supercategories of the images `names`, and what gives no label.

    `names` are the images of the captions file. Raises BadInput for a file that is not COCO's objects, and for an image
    id that has another file name than in `names`.
    """
    content = _content(data, where, "objects", ("annotations", "categories"), parse_float=_id_or_half)
    dropped: list[Dropped] = []
    images = content.get("images")
    for image, name in (_names(images, where, []) if isinstance(images, list) else {}).items():
        if names.get(image, name) != name:
            raise BadInput(
                f"{where}: the image {key_of_id(image)} is {_shown(name)} here and {_shown(names[image])} beside the "
                "captions: mend the file, or move it away to run without labels"
            )
    categories = _categories(content["categories"], where, dropped)
    labels: dict[Label, None] = {}
    unlisted: Counter[str] = Counter()
    for row in content["annotations"]:
        number = id_of(row.get("image_id")) if isinstance(row, dict) else None
        if number is None or number not in names:
            continue
        category = id_of(row.get("category_id"))
        if category is None or category not in categories:
            unlisted["without an id" if category is None else key_of_id(category)] += 1
            continue
        labels.update((Label(key_of_id(number), name, text), None) for name, text in categories[category])
    dropped += [Dropped(f"category {key}", NO_CATEGORY, f"{count:,} annotations") for key, count in unlisted.items()]
    return list(labels), dropped


def _content(data: bytes, where: str, what: str, needed: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Return the JSON object in a file. Raises BadInput for an object without the lists `needed`."""
    try:
        text = data.decode(json.detect_encoding(data), "surrogateescape")  # file names keep bytes that are not UTF-8
        content = json.loads(text, **options)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not COCO's {what}: it cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise BadInput(
            f"{where}: not COCO's {what}: it holds {shown(content)}, not an object with {' and '.join(needed)}"
        )
    for key in needed:
        if not isinstance(content.get(key), list):
            held = ", ".join(map(clean, list(content)[:KEYS_SHOWN])) or "no keys"
            raise BadInput(f"{where}: not COCO's {what}: it has no list {key!r}; it holds {held}")
    return content


def _id_or_half(text: str) -> float:
    """Return a number of a file of objects. Only ids matter there, so all fractions, mostly of outlines, are one."""
    number = float(text)
    return number if number.is_integer() else 0.5


def _names(images: list[Any], where: str, dropped: list[Dropped]) -> dict[Id, str]:
    """Return {image id: file name}. Raises BadInput for one id with several names; equal entries count as one."""
    names: dict[Id, str] = {}
    for place, image in enumerate(images):
        entry = f"images[{place}]"
        if not isinstance(image, dict):
            dropped.append(Dropped(entry, NO_OBJECT, shown(image)))
            continue
        number, name = id_of(image.get("id")), _file_name(image.get("file_name"))
        if number is None:
            dropped.append(Dropped(entry, NO_ID, f"id {shown(image.get('id'))}, {_shown(name or '')}"))
        elif name is None:
            dropped.append(Dropped(key_of_id(number), NO_NAME, f"{entry}: {shown(image.get('file_name'))}"))
        elif names.setdefault(number, name) != name:
            raise BadInput(
                f"{where}: images: the id {number!r} is given to {_shown(names[number])} and to {_shown(name)}: "
                "every image needs an id of its own, which its annotations name as image_id"
            )
    return names


def _file_name(value: Any) -> str | None:
    """Return a file name. Python writes the bytes of a name that is not UTF-8 as lone surrogates, which are kept."""
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return clean(value)
    return value


def _shown(name: str) -> str:
    return repr(key_of(name))


def _rows_by_image(annotations: list[Any], names: dict[Id, str], dropped: list[Dropped]) -> dict[Id, list[_Row]]:
    """Return the annotations with captions of each listed image. All others are dropped."""
    rows: dict[Id, list[_Row]] = {}
    for place, row in enumerate(annotations):
        entry = f"annotations[{place}]"
        if not isinstance(row, dict):
            dropped.append(Dropped(entry, NO_OBJECT, shown(row)))
            continue
        number, image = id_of(row.get("id")), id_of(row.get("image_id"))
        key = entry if number is None else key_of_id(number)
        if "caption" not in row:
            dropped.append(Dropped(key, NO_CAPTION_KEY, entry))
        elif image is None:
            dropped.append(Dropped(key, NO_IMAGE_ID, f"image_id {shown(row.get('image_id'))}"))
        elif image not in names:
            dropped += [Dropped(key, UNLISTED, f"{image}") for _ in texts_of(row["caption"]).texts]
            dropped += _not_captions(key, row["caption"])
        else:
            rows.setdefault(image, []).append(_Row(number, row["caption"]))
    return rows


def _captions(image: Id, rows: list[_Row], dropped: list[Dropped]) -> list[Caption]:
    """Return the captions of an image, sorted by their keys."""
    texts = [texts_of(row.caption).texts for row in rows]
    ids = Counter(row.number for row, own in zip(rows, texts, strict=True) if own)
    captions: list[Caption] = []
    apart: list[str] = []
    for row, own in zip(rows, texts, strict=True):
        if row.number is not None and ids[row.number] == 1 and len(own) == 1:
            captions.append(Caption(key_of_id(row.number), own[0]))
        else:
            apart += own
        dropped += _not_captions(key_of_id(image), row.caption)
    return sorted(captions + list(captions_of(key_of_id(image), apart)))


def _not_captions(key: str, value: Any) -> Iterator[Dropped]:
    """Return what the ledger lists for a value: what is no caption in it, also that an empty list holds none."""
    found = texts_of(value)
    yield from left_out(key, found.left_out)
    if not found.texts and not found.left_out:
        yield Dropped(key, EMPTY, "empty list")


def _categories(listed: list[Any], where: str, dropped: list[Dropped]) -> dict[Id, list[tuple[str, str]]]:
    """Return {category id: [("category", name), ("supercategory", name)]}. Values that are no labels are dropped.

    Raises BadInput for one id with several names.
    """
    categories: dict[Id, list[tuple[str, str]]] = {}
    for place, one in enumerate(listed):
        number = id_of(one.get("id")) if isinstance(one, dict) else None
        if number is None:
            dropped.append(Dropped(f"categories[{place}]", NO_LABEL, shown(one)))
            continue
        own = []
        for key, value in (("category", one.get("name")), ("supercategory", one.get("supercategory"))):
            found = label_texts(value)
            own += [(key, text) for text, wrong in found if not wrong]
            dropped += [Dropped(f"category {key_of_id(number)}", NO_LABEL, wrong) for _, wrong in found if wrong]
        if categories.setdefault(number, own) != own:
            raise BadInput(
                f"{where}: categories: the id {number!r} is given to {categories[number]} and to {own}: every category "
                "needs an id of its own; mend the file, or move it away to run without labels"
            )
    return categories
