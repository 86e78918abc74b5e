"""Which file of a folder is its table of captions, where a picture named by the table lies, and what a folder holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from storage.errors import BadInput
from storage.places import is_file, is_folder
from storage.sources.annotations import is_token, looks_like_captions
from storage.sources.delimited import utf8
from storage.sources.files import confined, is_picture, key_of, of_macos
from storage.sources.tables import is_table

HEAD = 1 << 16  # bytes by which a file is recognised
IMG2DATASET = {"key", "status", "error_message"}  # columns of the tables that img2dataset writes beside its pictures
SURE = 2  # `bases_of` names the folder of the pairs and the folder of the table first
MOST_FOLDERS = 16  # folders in which a picture is looked up
MOST_FILES = 100_000  # files that are counted for an error


def table_in(folder: Path) -> Path | None:
    """Return the table of captions in a folder; None if captions are next to the pictures, or if there is no table.

    A CSV, TSV, JSON lines or Parquet file is a table, but not one that img2dataset wrote beside pictures with .txt
    files. In a folder without such a file, and without pictures with .txt files, it is captions.txt, a .token file, an
    array of objects in JSON, or one of Karpathy's files. Raises BadInput for several tables.
    """
    tables = sorted(file for file in folder.iterdir() if is_table(file))
    made = [file for file in tables if _is_of_img2dataset(file)]
    if made and has_captioned_picture(folder):
        tables = [file for file in tables if file not in made]
    if not tables and not has_captioned_picture(folder):
        tables = sorted(file for file in folder.iterdir() if _is_known(file))
    if len(tables) > 1:
        names = ", ".join(key_of(file.name) for file in tables)
        raise BadInput(f"{folder} holds several tables: name one of {names} with pairs.table")
    return tables[0] if tables else None


def has_captioned_picture(folder: Path) -> bool:
    """Whether a picture below a folder has a .txt file of its own."""
    return any(
        is_picture(file.name) and is_file(file.with_suffix(".txt")) and not of_macos(f"{file.relative_to(folder)}")
        for file in folder.rglob("*")
    )


def find(root: Path, bases: Sequence[str], name: str) -> list[str]:
    """Return the path below `root` of the file that a table names; several if they are equally likely; or nothing.

    `bases` are folders below `root`, as `bases_of` returns them: a file in the first or second is the one.
    """
    found = []
    for number, base in enumerate(bases):
        path = f"{base}/{name}" if base and not name.startswith("/") else name
        file = confined(root, path)
        if file is not None and is_file(file):
            if number < SURE:
                return [path]
            found.append(path)
    return found


def below(root: Path, images: str | None) -> str:
    """Return the folder of the images below `root` that the study names, "" if it names none.

    Raises BadInput when it is no folder below `root`.
    """
    if images is None:
        return ""
    folder = confined(root, images)
    if folder is None or not is_folder(folder):
        raise BadInput(f"pairs.images = {images!r}: no such folder below {root}")
    return images.rstrip("/")


def bases_of(root: Path, table: Path, images: str | None) -> list[str]:
    """Return the folders, below `root`, to which names in a table may be relative.

    They are `images` alone if the study names it; else `root`, the folder of the table, and the folders in both, unless
    these are many. Raises BadInput when `images` is no folder below `root`.
    """
    if images is not None:
        return [below(root, images)]
    places = (root, table.parent.resolve())
    nested = [folder for place in dict.fromkeys(places) for folder in _folders(place) if folder not in places]
    few = dict.fromkeys(nested) if len(nested) <= MOST_FOLDERS else ()
    bases = [place.relative_to(root).as_posix() for place in (*places, *few)]
    return ["" if base == "." else base for base in bases]


def contents(folder: Path) -> str:
    """Return what a folder holds, for an error: "3 .pdf, 1 .docx, 1 links to folders"."""
    counts: Counter[str] = Counter()
    for _, path in zip(range(MOST_FILES), folder.rglob("*"), strict=False):
        if is_file(path):
            counts[key_of(path.suffix.lower()) or "files without an extension"] += 1
        elif path.is_symlink():
            counts["links to folders" if path.is_dir() else "broken links"] += 1
    return ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(8)) or "no files"


def _folders(place: Path) -> list[Path]:
    return sorted(one for one in place.iterdir() if one.is_dir() and not one.name.startswith("."))


def _is_of_img2dataset(file: Path) -> bool:
    if file.suffix.lower() != ".parquet":
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return set(pq.read_schema(file).names) >= IMG2DATASET
    except (pa.ArrowException, OSError):
        return False


def _is_known(file: Path) -> bool:
    """Whether a .json, .token or .txt file is laid out as a table of captions."""
    name = file.name.lower()
    known = name == "captions.txt" or name.endswith((".json", ".token", ".token.txt"))
    if not known or of_macos(name) or not is_file(file):
        return False
    try:
        with file.open("rb") as opened:
            head = utf8(opened.read(HEAD))
    except OSError:
        return False
    if name.endswith(".json"):
        return looks_like_captions(head)
    return is_token(head) or name == "captions.txt"
