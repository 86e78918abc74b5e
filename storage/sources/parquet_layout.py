"""Datasets of Parquet files as the Hugging Face hub lays them out: configs, splits, nested columns, names of classes.

A file belongs to a split by its name (train-00000-of-00002.parquet, train.parquet) or its folder (train/0000.parquet),
and to a config by the folders above (CONFIG/train-*.parquet). The folder data/ is no config.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from storage.errors import BadInput
from storage.sources.captions import clean
from storage.sources.tables import CAPTION_COLUMNS

if TYPE_CHECKING:  # pyarrow takes a third of a second to import
    import pyarrow as pa

SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
CAPTION_WORDS = ("caption", "captions", "text", "title", "alt", "description", "sentences", "raw", "prompt")
NO_FOLDERS = ("data", "default")  # folders and configs without a name of their own
SHOWN = 20  # number of names that a message shows
STARS = "** stands for folders, so it must be a whole part between slashes (data/**/*)"
_SHARD = re.compile(r"(.+?)-[0-9]+-of-[0-9]+(-.*)?")
_NUMBER = re.compile(r"(part-?)?[0-9]+")


class Place(NamedTuple):
    """The config and the split to which a file belongs, each "" if its path names none."""

    config: str
    split: str


def place_of(name: str) -> Place:
    """Return the config and the split of a file, from its path relative to the dataset."""
    *folders, file = PurePosixPath(name).parts
    stem = file.removesuffix(".parquet")
    shard = _SHARD.fullmatch(stem)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", stem) if word in SPLITS]
    split = shard[1] if shard else words[0] if words else ""
    below = folders[-1].removeprefix("partial-") if folders else ""
    if not split and below and (below in SPLITS or (_NUMBER.fullmatch(stem) and len(folders) > 1)):
        split = below
    if below == split:
        folders = folders[:-1]
    return Place("/".join(folder for folder in folders if folder not in NO_FOLDERS), split)


def choose(names: Iterable[str], configs: Sequence[str], splits: Sequence[str], where: str) -> list[str]:
    """Return the files of the given configs and splits; [] stands for all. Raises BadInput for one without a file."""
    chosen = {name: place_of(name) for name in names}
    for key, wanted in (("config", configs), ("splits", splits)):
        held = dict.fromkeys(_value(place, key) for place in chosen.values())
        missing = [one for one in wanted if one not in held]
        if missing:
            there = ", ".join(map(repr, list(held)[:SHOWN])) or "none"
            raise BadInput(f"pairs.{key} = {list(wanted)}: {where} has no {missing[0]!r}. Available: {there}.")
        if wanted:
            chosen = {name: place for name, place in chosen.items() if _value(place, key) in wanted}
    return list(chosen)


def check_shared(images: dict[str, set[str]], where: str) -> None:
    """Raise BadInput when two configs hold mostly the same images, of {config: digests of its images}.

    Such configs are readings of one dataset: its languages, versions or subsets.
    """
    names = sorted(images)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            shared, smaller = len(images[one] & images[other]), min(len(images[one]), len(images[other]))
            if smaller and 2 * shared > smaller:
                there = ", ".join(map(repr, names[:SHOWN]))
                raise BadInput(
                    f"{where}: the configs {one!r} and {other!r} hold the same images ({shared:,} of {smaller:,}): set "
                    f"pairs.config to one of {there}, or to a list of those whose captions belong together"
                )


def has_stars_inside(parts: Iterable[str]) -> bool:
    """Return whether a part of a pattern holds ** beside other characters: Python reads it as *, other tools do not."""
    return any("**" in part and part != "**" for part in parts)


def checked_pattern(pattern: str) -> str:
    """Return a pattern of files. Raises BadInput for one that is absolute, leaves the dataset, or has no meaning."""
    parts = pattern.split("/")
    wrong = (
        "it is empty"
        if not pattern.strip()
        else "it must be relative to the dataset"
        if pattern.startswith("/") or ".." in parts or "\0" in pattern
        else STARS
        if has_stars_inside(parts)
        else ""
    )
    if wrong:
        raise BadInput(f"pairs.files = {pattern!r}: {wrong}")
    return pattern


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that match a pattern, as `Path.glob` does: * and ? stay within a folder, **/ is any folders.

    Hidden files, as macOS (._NAME) and caches write them, are left out, unless the pattern names one.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    return [name for name in names if _fits(name.split("/"), parts) and not _hidden(name, parts)]


def local_files(root: Path, pattern: str) -> list[str]:
    """Return the Parquet files below a folder that match a pattern, sorted, relative to the folder.

    Hidden files are left out as in `matching`. Raises BadInput for a file whose name is not UTF-8.
    """
    try:
        found = [path for path in root.glob(pattern) if path.suffix == ".parquet" and path.is_file()]
    except (ValueError, NotImplementedError, OSError) as error:
        raise BadInput(f"pairs.files = {pattern!r}: {error}") from None
    names = [path.relative_to(root).as_posix() for path in sorted(found)]
    if wrong := [name for name in names if clean(name) != name]:
        raise BadInput(f"pairs.files: the name of {clean(wrong[0])!r} in {root} is not UTF-8: rename the file")
    return [name for name in names if not _hidden(name, pattern.split("/"))]


def _hidden(name: str, parts: Sequence[str]) -> bool:
    """Whether a file or one of its folders is hidden, and no part of the pattern names hidden ones."""
    return any(one.startswith(".") for one in name.split("/")) and not any(
        part.startswith(".") and part != "." for part in parts
    )


def top_column(names: Sequence[str], column: str) -> tuple[str, list[str]]:
    """Return (column, keys inside it). "a.b" is the key b inside the column a, unless a column has this name."""
    if column in names:
        return column, []
    top, *inside = column.split(".")
    return top, inside


def values_of(column: Any) -> list[Any]:
    """Return the values of a column. A text that is not UTF-8 is returned as bytes.

    A value that Python cannot hold, such as a time in nanoseconds, becomes an object that says why, which is no text.
    Maps become objects, so that their keys are not taken for texts.
    """
    try:
        return list(column.to_pylist(maps_as_pydicts="lossy"))
    except (ValueError, OverflowError):
        return [_value_of(one) for one in column]


def _value_of(one: Any) -> Any:
    """Return one value of a column, as `values_of` does."""
    try:
        return one.as_py(maps_as_pydicts="lossy")
    except (ValueError, OverflowError) as error:
        if isinstance(error, UnicodeDecodeError) and hasattr(one, "as_buffer"):
            return one.as_buffer().to_pybytes()
        return {"cannot be read": str(error)}


def inner(value: Any, keys: Sequence[str]) -> Any:
    """Return the value at the keys inside a value. In a list, the keys are looked up in each entry. None if missing."""
    if not keys:
        return value
    if isinstance(value, list):
        return [inner(one, keys) for one in value]
    return inner(value.get(keys[0]), keys[1:]) if isinstance(value, dict) else None


def holds(schema: pa.Schema, column: str) -> bool:
    """Whether a schema has a column, or a field inside a column ("a.b")."""
    top, keys = top_column(schema.names, column)
    return top in schema.names and _field_at(schema.field(top).type, keys) is not None


def caption_like(schema: pa.Schema) -> list[str]:
    """Return the columns that look like captions: of text, or of lists or objects with text, the likely names first."""
    found = [one for name in schema.names for one in _texts_in(name, schema.field(name).type)]
    words = (*CAPTION_COLUMNS, *CAPTION_WORDS)
    named = [name for name in found if any(word in words for word in re.split(r"[^A-Za-z]+", name))]
    return named or found


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the names of the classes that a column's integers stand for, as the library datasets stores them.

    None for a column without such names.
    """
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b""))
        feature: Any = content["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    top, inside = top_column(schema.names, column)
    for key in [top, *inside]:
        feature = _unlisted(feature)
        feature = feature.get(key) if isinstance(feature, dict) else None
    feature = _unlisted(feature)
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def named_classes(value: Any, names: Sequence[str]) -> Any:
    """Return a value with the names of classes in place of their numbers. -1 stands for no class, as on the hub."""
    if isinstance(value, list):
        return [named_classes(one, names) for one in value]
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if value == -1:
        return None
    return names[value] if 0 <= value < len(names) else {"class": value, "classes": len(names)}


def _value(place: Place, key: str) -> str:
    return place.config or "default" if key == "config" else place.split


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the folders and the file of a path fit the parts of a pattern."""
    if not parts or not names:
        return not parts and not names
    if parts[0] == "**":
        return any(_fits(names[start:], parts[1:]) for start in range(len(names)))
    return fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _unlisted(feature: Any) -> Any:
    """Return the feature of a list's entries, for a feature that is a list."""
    while True:
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature and isinstance(feature.get("_type"), str):
            feature = feature["feature"]
        else:
            return feature


def _item_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the entries of a list, at any depth."""
    import pyarrow as pa

    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def _field_at(kind: pa.DataType, keys: Sequence[str]) -> pa.DataType | None:
    import pyarrow as pa

    for key in keys:
        kind = _item_type(kind)
        if not pa.types.is_struct(kind) or kind.get_field_index(key) < 0:
            return None
        kind = kind.field(key).type
    return kind


def _texts_in(name: str, kind: pa.DataType) -> Iterator[str]:
    """Yield the paths of all texts in a column. The path of an image is no text."""
    import pyarrow as pa

    kind = _item_type(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield name
    elif pa.types.is_struct(kind) and kind.get_field_index("bytes") < 0:
        for number in range(kind.num_fields):
            yield from _texts_in(f"{name}.{kind.field(number).name}", kind.field(number).type)
