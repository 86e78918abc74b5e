"""Recognise the data in a folder or a file by names, columns and headers, and state it as a section [pairs]."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from storage.errors import BadInput
from storage.places import exists
from storage.sources.compressed import DAMAGED, ending_of, reading
from storage.sources.delimited import Form, names_a_picture
from storage.sources.files import is_picture, of_macos
from storage.sources.layouts import table_in
from storage.sources.parquet_layout import local_files
from storage.sources.section import is_url
from storage.sources.tables import (
    CAPTION_COLUMNS,
    GROUP_COLUMNS,
    IMAGE_COLUMNS,
    NAMED_TABLES,
    TABLES,
    Table,
    read_table,
)
from storage.sources.urls import URL_COLUMNS
from storage.vector_size import VectorSize, vector_size

FIRST = 5  # number of names or columns that a message shows
MEMBERS = 2000  # number of a tar's members that are looked at
FEW_SHARDS = 20  # up to this number, tars are listed one by one; more tars are named by one pattern
CAPTION_WORDS = ("caption", "text", "title", "alt", "description")


class Found(NamedTuple):
    """A source that was recognised."""

    source: str
    keys: dict[str, Any]  #: keys of the section [pairs], without `source`; paths are absolute
    why: str  #: a sentence that says by what the source was recognised
    vectors: VectorSize | None = None


def look(path: Path) -> Found:
    """Recognise the data at a path.

    Raises BadInput for data of no known kind. The error says what was seen and which keys to set.
    """
    if not exists(path):
        raise BadInput(f"{path}: no such file or folder")
    place = path.resolve()
    if place.is_file():
        found = _file(place)
    else:
        found = _vectors(place) or _coco(place) or _tars(place) or _parquet_pictures(place) or _folder(place)
    if found is None:
        names = sorted(one.name + ("/" if one.is_dir() else "") for one in place.iterdir()) if place.is_dir() else []
        seen = f"it holds {', '.join(names[:FIRST])}" if names else "it is empty" if place.is_dir() else "it is a file"
        raise BadInput(
            f"{path}: not recognised: {seen}. Known are a folder of pictures with a table of captions or a .txt file "
            "beside each, a table of URLs or paths with captions (CSV, TSV, JSON, Parquet), WebDataset tars, COCO's "
            "captions_*.json with pictures, Parquet files with pictures, and folders of vectors (image.npy and "
            "text.npy, img_emb/ and text_emb/, Zarr, Parquet). Other layouts: write a study file with pairs.source"
        )
    return found


def _file(file: Path) -> Found | None:
    if ending_of(file.name):
        return _of_tars([file], file.parent)
    if file.suffix == ".json" and file.name.startswith("captions_"):
        folder = file.parent.parent if file.parent.name == "annotations" else file.parent
        return _of_annotations(folder, file)
    return _table(file) if file.suffix.lower() in TABLES + NAMED_TABLES else None


def _vectors(folder: Path) -> Found | None:
    size = vector_size(folder)
    return Found("embeddings", {"path": str(folder)}, f"vectors: {size.layout}", size) if size else None


def _coco(folder: Path) -> Found | None:
    for place in (folder / "annotations", folder):
        files = sorted(place.glob("captions_*.json")) if place.is_dir() else []
        if len(files) > 1:
            subsets = ", ".join(file.stem.removeprefix("captions_") for file in files)
            raise BadInput(f"{place}: holds captions of several subsets ({subsets}): name one of the files")
        if files:
            return _of_annotations(folder, files[0])
    return None


def _of_annotations(folder: Path, file: Path) -> Found:
    subset = file.stem.removeprefix("captions_")
    keys = {"path": str(folder), "subset": subset}
    places = [folder / name for name in (subset, f"images/{subset}", f"{subset}.zip", f"zips/{subset}.zip")]
    if not any(place.exists() for place in places):
        holding = [one for one in (folder / "images", folder) if one.is_dir() and _first_picture(one)]
        if not holding:
            raise BadInput(
                f"{file}: COCO's captions, but the pictures are in none of {', '.join(map(str, places))}: set "
                "pairs.images to their folder or zip"
            )
        keys["images"] = str(holding[0])
    return Found("coco", keys, f"COCO's captions in {file.name}")


def _first_picture(folder: Path) -> Path | None:
    return next((one for one in folder.iterdir() if is_picture(one.name)), None)


def _tars(folder: Path) -> Found | None:
    """Recognise tars in a folder, and those in the folders below it."""
    if not any(ending_of(file.name) and not file.name.startswith(".") for file in folder.iterdir()):
        return None
    names = [file.relative_to(folder) for file in folder.rglob("*") if ending_of(file.name)]
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return _of_tars(sorted(folder / name for name in shown), folder)


def _of_tars(tars: Sequence[Path], folder: Path) -> Found:
    """Recognise tars, which are all in or below a folder."""
    try:
        caption = _caption_of_tar(tars[0])
    except (tarfile.TarError, *DAMAGED) as error:
        raise BadInput(f"{tars[0]}: cannot be read as a tar: {error}") from error
    few = len(tars) <= FEW_SHARDS
    endings = sorted({ending_of(tar.name) for tar in tars})
    below = "" if len({tar.parent for tar in tars}) == 1 else "**/"
    shards = [str(tar) for tar in tars] if few else [f"{folder}/{below}*{ending}" for ending in endings]
    keys = {"shards": shards} | ({} if caption == "txt" else {"caption": caption})
    return Found("webdataset", keys, f"{len(tars)} WebDataset tars, captions in {caption}")


def _caption_of_tar(tar: Path) -> str:
    """Return the value of the key `caption` for a tar: a file extension, or json:KEY.

    Raises BadInput when no member of the tar looks like a caption.
    """
    extensions: Counter[str] = Counter()
    keys: list[str] = []
    with reading(tar) as content, tarfile.open(fileobj=content, mode="r|") as archive:
        for _, member in zip(range(MEMBERS), archive, strict=False):
            stem, _, extension = member.name.rpartition("/")[2].lower().rpartition(".")
            if not member.isfile() or not stem or stem.startswith("._"):
                continue
            extensions[extension] += 1
            data = archive.extractfile(member) if extension == "json" and not keys and member.size < 1 << 20 else None
            if data is not None:
                try:
                    held = json.loads(data.read())
                except ValueError:
                    continue
                keys = [str(key) for key in held] if isinstance(held, dict) else []
    if not any(is_picture(f"x.{extension}") for extension in extensions):
        seen = ", ".join(extensions) or "no files"
        raise BadInput(f"{tar}: holds no pictures, only {seen}; WebDataset's samples are KEY.jpg and KEY.txt")
    for extension in ("txt", "caption", "text"):
        if extensions[extension]:
            return extension
    key = _named(keys, CAPTION_COLUMNS, CAPTION_WORDS)
    if key is not None:
        return f"json:{key}"
    also = f"; the JSON has the keys {', '.join(keys[:FIRST])}" if keys else ""
    raise BadInput(f"{tar}: found no captions: members end in {', '.join(extensions)}{also}; set pairs.caption")


def _parquet_pictures(folder: Path) -> Found | None:
    """Recognise Parquet files with a column of encoded pictures, the format of many datasets on the hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [folder / name for name in local_files(folder, "**/*.parquet")]
    if not files:
        return None
    try:
        schema = pq.read_schema(files[0])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{files[0]}: not a readable Parquet file: {error}") from error

    def holds_pictures(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    pictures = [name for name in schema.names if holds_pictures(schema.field(name).type)]
    with pq.ParquetFile(files[0]) as file:
        first: dict[str, Any] = next((batch.to_pylist()[0] for batch in file.iter_batches(1, columns=pictures)), {})
    pictures = [name for name in pictures if not _is_path(first.get(name))]
    if not pictures:
        return None
    caption = _caption_column(schema.names, files[0])
    image = "image" if "image" in pictures else pictures[0]
    keys = {"repo": str(folder)}
    keys |= {key: name for key, name in (("image_column", image), ("caption_column", caption)) if name != key[:-7]}
    return Found("huggingface", keys, f"Parquet files with pictures in the column {image}")


def _is_path(value: Any) -> bool:
    """Whether the value of a column of pictures is a path without bytes, as the library datasets may write it."""
    return isinstance(value, dict) and not value.get("bytes") and isinstance(value.get("path"), str)


def _folder(folder: Path) -> Found | None:
    table = table_in(folder)
    if table is not None:
        return _table(table)
    pictures = [
        one
        for one in folder.rglob("*")
        if is_picture(one.name) and not of_macos(one.relative_to(folder).as_posix()) and one.is_file()
    ]
    if not pictures:
        return None
    if not any(one.with_suffix(".txt").is_file() for one in pictures):
        raise BadInput(
            f"{folder}: holds {len(pictures)} pictures ({pictures[0].name}, ...), but neither a table of captions nor "
            "a .txt file beside a picture: add a table with the columns file_name and caption"
        )
    return Found("folder", {"path": str(folder)}, "pictures with a .txt file beside each")


def _table(file: Path) -> Found:
    """Recognise a table of captions with the URLs or the paths of their images."""
    table = read_table(file)
    keys: dict[str, Any] = {}
    if table.headed and any(map(names_a_picture, table.columns)):
        table, keys = read_table(file, Form(header=False)), {"header": False}
    first = {name: _first_text(table, name) for name in table.columns}
    caption = _longest_text(table, first) if keys else _caption_column(table.columns, file)
    groups = _named(table.columns, GROUP_COLUMNS, ())
    urls = [name for name, text in first.items() if is_url(text)]
    if urls:
        url = _usual(urls, URL_COLUMNS) or urls[0]
        keys |= {"path": str(file)} | ({} if url in URL_COLUMNS else {"url_column": url})
        found = Found("urls", keys, f"{file.name}: URLs in the column {url}")
    else:
        paths = [name for name, text in first.items() if is_picture(text)]
        if not paths:
            raise BadInput(
                f"{file}: its columns are {', '.join(table.columns[: 2 * FIRST])}, and none holds URLs or names of "
                "pictures: write a study file and set pairs.url_column or pairs.image_column"
            )
        image = _usual(paths, IMAGE_COLUMNS) or paths[0]
        keys |= {"path": str(file.parent), "table": file.name}
        keys |= {} if _usual(table.columns, IMAGE_COLUMNS) == image else {"image_column": image}
        found = Found("folder", keys, f"{file.name}: names of pictures in the column {image}")
    if _usual(table.columns, CAPTION_COLUMNS) != caption:
        found.keys["caption_column"] = caption
    return found._replace(why=found.why + (f", groups in {groups}" if groups else ""))


def _first_text(table: Table, name: str) -> str:
    """The first text in a column, or the first path of an object; "" if there is none."""
    value = next((value for value in table[name] if value), None)
    value = value.get("path") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _longest_text(table: Table, first: dict[str, str]) -> str:
    """The column with the longest texts at the beginning, of a table without names of columns."""
    others = [name for name, text in first.items() if not names_a_picture(text)] or table.columns
    return max(others, key=lambda name: sum(len(value or "") for value in table[name][:MEMBERS]))


def _caption_column(columns: Sequence[str], file: Path) -> str:
    found = _named(columns, CAPTION_COLUMNS, CAPTION_WORDS)
    if found is None:
        raise BadInput(
            f"{file}: found no captions: its columns are {', '.join(columns[: 2 * FIRST])}; name the column "
            "caption, or write a study file and set pairs.caption_column"
        )
    return found


def _usual(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    return next((name for name in usual if name in columns), None)


def _named(columns: Sequence[str], usual: Sequence[str], words: Sequence[str]) -> str | None:
    """The first usual name among the columns, else the first column whose name holds one of the words."""
    return _usual(columns, usual) or next(
        (name for word in words for name in columns if word in name.lower().replace("-", "_").split("_")), None
    )
