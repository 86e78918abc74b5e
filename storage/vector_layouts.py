"""The layouts of folders of vectors: which files hold the image and text vectors, and the metadata beside them.

Layouts, each in one folder:
  image.npy + text.npy                           two arrays
  img_emb/img_emb_*.npy + text_emb/text_emb_*.npy
                                                 the output of clip-retrieval: parts in numeric order, with
                                                 metadata/metadata_*.parquet
  *.parquet with columns image_embedding, text_embedding
  image + text                                   two Zarr arrays; the folder may be a Zarr group
  image.npz + text.npz, or one .npz              one array in each, or the arrays image and text
The folder may also hold metadata.parquet (or metadata/*.parquet) with one row per pair. Its columns are key,
image_path, group, caption and image_row; all are optional. Caption row j belongs to image row j, or to the image row
that the integer column `image_row` states. Other files that state names or captions are refused, unless the metadata
holds both: they would be lost.

A folder has one layout. Files are joined by position only if they have equally many rows. Of a table, only the columns
that are used are read.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from storage.errors import BadInput
from storage.vector_arrays import Array, Parts, holds_both, joined, read_npy, read_npz, read_zarr, vectors_in
from storage.vector_metadata import COLUMNS, Metadata, columns_of, metadata_of, read_table, stated

PARTS = ("img_emb", "text_emb", "metadata")  # folders of clip-retrieval's layout
EMBEDDINGS = ("image_embedding", "text_embedding")  # columns of vectors in Parquet
OTHER_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".feather", ".arrow"})
#: Names of files with names or captions that are not read, in lower case.
LISTS = re.compile(r"(keys?|captions?|metadata)\.(csv|tsv|jsonl|ndjson|json|feather|arrow|txt)(\.(gz|bz2|xz|zst|zip))?")


class Layout(NamedTuple):
    """The contents of a folder, before each caption is assigned to its image."""

    image: Array | Parts
    text: Array | Parts
    files: tuple[Path, Path]  #: the file or folder of `image` and of `text`, the first one of several
    metadata: Metadata | None
    sizes: dict[str, tuple[int, int]]  #: {part: (image rows, text rows)}; most layouts have one part


def _refuse_broken_links(path: Path) -> None:
    """Raise BadInput for a link to a missing file or folder with vectors or metadata: it would count as not there."""
    for link in sorted(one for one in path.iterdir() if one.is_symlink() and not one.exists()):
        if link.suffix.lower() in ("", ".npy", ".npz", ".parquet"):
            raise BadInput(f"{link}: is a broken link: {os.readlink(link)} is not there; fetch it, or remove the link")


def layout_of(path: Path) -> Layout:
    """Return the contents of a folder of vectors. Raises BadInput for none, two, or a damaged layout."""
    _refuse_broken_links(path)
    found: dict[str, Callable[[], Layout]] = {}
    if (path / "image.npy").exists():
        found["image.npy"] = lambda: _whole(path, "image.npy", "text.npy", lambda name: read_npy(path / name))
    if (path / "image" / "zarr.json").exists() or (path / "image" / ".zarray").exists():
        found["image (Zarr)"] = lambda: _whole(path, "image", "text", lambda name: read_zarr(path / name))
    tables = [file for file in _files(path, ".parquet") if file.name != "metadata.parquet"]
    whole = path / "metadata.parquet"
    if not tables and whole.exists():
        tables = [whole]
    if tables and columns_of(tables[0]) >= {*EMBEDDINGS}:
        found[tables[0].name] = lambda: _parquet(path, tables)
    if _files(path / "img_emb", ".npy") or (not found and (path / "img_emb").is_dir()):
        found["img_emb"] = lambda: _clip_retrieval(path)
    archives = _files(path, ".npz")
    if [file.name for file in archives] == ["image.npz", "text.npz"]:
        found["image.npz"] = lambda: _whole(
            path, "image.npz", "text.npz", lambda name: read_npz(path / name, name.removesuffix(".npz"))[0]
        )
    elif len(archives) == 1 and (not found or holds_both(archives[0])):
        found[archives[0].name] = lambda: _archive(path, archives[0])
    if not found:
        held = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
        raise BadInput(
            f"embeddings:{path}: found no image.npy, img_emb/*.npy, Zarr array image, "
            "or Parquet with columns image_embedding and text_embedding, and no .npz with the arrays image and text; "
            f"the folder holds {held}: name the files in one of these ways"
        )
    if len(found) > 1:
        one, other, *_ = sorted(found)
        raise BadInput(f"embeddings:{path}: {one} and {other} both hold vectors: keep one of them in this folder")
    return found.popitem()[1]()


def _whole(path: Path, image: str, text: str, read: Callable[[str], Array]) -> Layout:
    """Return a layout of two files or folders, each read by its name, with the metadata beside them."""
    return _beside(path, (path / image, path / text), read(image), read(text))


def _archive(path: Path, file: Path) -> Layout:
    """Return a layout of one .npz file with both arrays, with the metadata beside it."""
    image, text = read_npz(file, "image", "text")
    return _beside(path, (file, file), image, text)


def _beside(path: Path, files: tuple[Path, Path], image: Array, text: Array) -> Layout:
    sizes = {"": (len(image), len(text))} if image.ndim and text.ndim else {}
    return Layout(image, text, files, _metadata(path), sizes)


def _clip_retrieval(path: Path) -> Layout:
    """Read numbered parts of images, texts and metadata. The metadata may be absent as a whole.

    Raises BadInput if one of these lacks a part, or if a part has different numbers of texts and of metadata rows.
    """
    files = {name: _numbered(path / name, ".parquet" if name == "metadata" else ".npy") for name in PARTS}
    if not files["metadata"]:
        del files["metadata"]
    for (name, numbers), (other, others) in itertools.permutations(files.items(), 2):
        if missing := sorted(others.keys() - numbers.keys()):
            wanted = others[missing[0]].stem.replace(other, name)
            raise BadInput(
                f"embeddings:{path}: {wanted} is missing, the part {missing[0]} that {other} has "
                f"({others[missing[0]]}): parts must have the same numbers in {', '.join(files)}"
            )
    if not files["img_emb"]:
        raise BadInput(f"embeddings:{path}: img_emb/ and text_emb/ must both hold .npy files")
    images, texts = ({number: read_npy(file) for number, file in files[name].items()} for name in PARTS[:2])
    of_images, of_texts = (list(files[name].values()) for name in PARTS[:2])
    image, text = joined(of_images, list(images.values())), joined(of_texts, list(texts.values()))
    metadata = _metadata(path)
    sizes = {f"part {number}: ": (len(images[number]), len(texts[number])) for number in images}
    if metadata is not None and "metadata" in files:
        for number, rows in zip(texts, metadata.rows, strict=True):
            if rows != len(texts[number]):
                raise BadInput(
                    f"embeddings:{path}: part {number}: {len(texts[number])} text rows, but the metadata has {rows} "
                    f"({files['metadata'][number]}): it must have one row for each text vector, in the same order"
                )
    return Layout(image, text, (of_images[0], of_texts[0]), metadata, sizes)


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """Return {part number: file} of a folder, in numeric order. The part number is the last number in the file name.

    Raises BadInput if two files have the same part number.
    """
    files: dict[int, Path] = {}
    for file in _files(folder, suffix):
        number = _number(file)[0]
        if number in files:
            raise BadInput(
                f"{folder}: {files[number].name} and {file.name} have the same number of a part, which is the last "
                "number in the name: keep one of them, or name the parts by numbers at the end"
            )
        files[number] = file
    return files


def _parquet(path: Path, tables: list[Path]) -> Layout:
    """Read tables of pairs. Each row holds the vectors of an image and of its caption, and their metadata.

    Tables without rows are passed over, since the types of their columns say nothing.
    """
    read, arrays = list[tuple[Path, pl.DataFrame]](), {name: list[Array]() for name in EMBEDDINGS}
    for file in tables:
        table = read_table(file, (*EMBEDDINGS, *COLUMNS))
        for name in EMBEDDINGS:
            if name not in table.columns:
                raise BadInput(f"{file}: has no column {name}, which {tables[0].name} has")
        if table.height:
            read.append((file, table))
    if not read:
        raise BadInput(f"{tables[0]}: has no rows, as all tables of vectors here: one row for each pair is needed")
    tables = [file for file, _ in read]
    for file, table in read:
        for name, parts in arrays.items():
            parts.append(vectors_in(file, table[name]))
    image, text = (joined(tables, parts) for parts in arrays.values())
    metadata = metadata_of(tables, [table for _, table in read])
    if not metadata.columns:
        beside = _metadata(path)
        metadata = metadata if beside is None else beside
    elif lost := sorted(
        {name for file in _tables(path) for name in columns_of(file) & {*COLUMNS}} - {*read[0][1].columns}
    ):
        raise BadInput(
            f"{_tables(path)[0]}: its column `{lost[0]}` is not read, since {tables[0].name} holds metadata too: put "
            f"`{lost[0]}` into the table of the vectors"
        )
    else:
        _refuse_lists(path, metadata)
    return Layout(image, text, (tables[0], tables[0]), metadata, {"": (len(image), len(text))})


def _metadata(path: Path) -> Metadata | None:
    """Return the metadata beside the vectors, or None if there is none.

    Raises BadInput if two tables have the same place in the order, and for names or captions in a file that is not
    read: they would be lost without a message.
    """
    files = _tables(path)
    _refuse_two_tables(path)
    for one, other in itertools.pairwise(files):
        if _unpadded(one) == _unpadded(other):
            raise BadInput(f"{one.parent}: {one.name} and {other.name} have the same number: keep one of them")
    metadata = metadata_of(files, [read_table(file, COLUMNS) for file in files]) if files else None
    _refuse_other_tables(path, files, metadata)
    _refuse_lists(path, metadata)
    return metadata


def _tables(path: Path) -> list[Path]:
    """Return the files of the metadata beside the vectors, in their order."""
    return _files(path / "metadata", ".parquet") or [*path.glob("metadata.parquet")]


def _refuse_two_tables(path: Path) -> None:
    """Raise BadInput for metadata in two places, and for one whose name has other upper and lower case."""
    known = ("metadata", "metadata.parquet")
    held = sorted(one for one in path.iterdir() if one.name.lower() in known)
    held = [one for one in held if one.suffix or _files(one, ".parquet")]
    if len(held) > 1:
        raise BadInput(f"{path}: {held[0].name} and {held[1].name} both hold metadata: keep one of them")
    if held and held[0].name not in known:
        raise BadInput(f"{held[0]}: is not read: name it {held[0].name.lower()}")


def _refuse_other_tables(path: Path, files: list[Path], metadata: Metadata | None) -> None:
    """Raise BadInput for a Parquet file with names or captions, beside those of the metadata, that these lack."""
    for file in sorted(file for file in path.iterdir() if file.suffix.lower() == ".parquet"):
        if file in files or file.name.startswith(".") or not file.is_file():
            continue
        if lost := sorted(stated(file) - (metadata.columns.keys() if metadata is not None else set())):
            advice = "name the file metadata.parquet" if metadata is None else f"put it into {files[0].name}"
            raise BadInput(f"{file}: its column for `{lost[0]}` is not read: {advice}, or move the file elsewhere")


def _refuse_lists(path: Path, metadata: Metadata | None) -> None:
    """Raise BadInput for a list of names or captions that is no Parquet, unless the metadata has both."""
    if metadata is not None and {"key", "caption"} <= metadata.columns.keys():
        return
    lists = [file for file in path.iterdir() if LISTS.fullmatch(file.name.lower())]
    parts = [file for file in path.glob("metadata/*") if file.suffix.lower() in OTHER_TABLES]
    for file in sorted(file for file in (*lists, *parts) if file.is_file()):
        of_metadata = file in parts or file.name.lower().startswith("metadata")
        if of_metadata and file.suffix.lower() == ".json" and not _is_list(file):
            continue  # settings of the program that wrote the vectors
        raise BadInput(
            f"{file}: metadata is read from Parquet alone: write it as metadata.parquet with the columns "
            f"{', '.join(COLUMNS)} (all optional), one row for each text vector"
        )


def _is_list(file: Path) -> bool:
    """Whether a JSON file holds a list."""
    with file.open("rb") as opened:
        return opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _files(folder: Path, suffix: str) -> list[Path]:
    """Return the files with a suffix, in numeric order. Hidden files, as macOS writes them (._NAME), are left out."""
    return sorted((file for file in folder.glob(f"*{suffix}") if not file.name.startswith(".")), key=_number)


def _number(path: Path) -> tuple[int, tuple[int, ...], str]:
    """Order files by the last number in their names, then by all numbers (part-2-of-12, part-10-of-12)."""
    numbers = tuple(int(number) for number in re.findall(r"[0-9]+", path.stem))
    return (numbers[-1] if numbers else -1, numbers, path.name)


def _unpadded(path: Path) -> str:
    """Return the name of a file with its numbers written without leading zeros."""
    return re.sub(r"[0-9]+", lambda number: f"{int(number[0])}", path.name)
