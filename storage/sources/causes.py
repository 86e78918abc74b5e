"""What the causes in a source's ledger mean for a user: counts with an example, and what can be set.

A source that offers no pair at all is bad input. Its error says by these sentences why each item was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.errors import BadInput
from storage.sources import Dropped
from storage.sources.captions import EMPTY, NO_TEXT
from storage.sources.files import INSTALL_HEIC, NOT_READ

#: {cause: what to do when items are left out by this cause}. A cause may be missing: then it speaks for itself.
ADVICE = {
    "no such file": "names of images are looked up below pairs.path, beside the table and in the folders there; "
    "pairs.images names their folder, and pairs.image_column their column; a broken link needs its file, which "
    "git-annex fetches",
    "caption without an image": "IMAGE.txt belongs to IMAGE.jpg, or to IMAGE with another extension of a picture",
    "link to a folder is not followed": "put the folder itself below pairs.path, or set pairs.path to it",
    "path out of the folder": "names of images must stay below pairs.path",
    NOT_READ: f"HEIC needs the extra heic ({INSTALL_HEIC}); convert other formats to PNG",
    "no image name": "pairs.image_column names the column of the images' file names",
    "image name is no text": "pairs.image_column names the column of the images' file names",
    "image is in the table": 'pairs.source = "huggingface" reads Parquet files with pictures in them',
    "several files of this name": "pairs.images names the folder of the images below pairs.path",
    "no URL": "pairs.url_column names the column of URLs",
    "line has more fields than columns": "a field that holds the separator must stand in double quotes; "
    "pairs.separator and pairs.quoting say how the table is written",
    "no JSON object": "a file of JSON lines has one object per line",
    "group is no text": "pairs.group_column names a column of texts or numbers",
    "several groups": "the rows of an image name one group; the first counts",
    "label is no text": "pairs.labels names columns of texts, lists of texts, or numbers",
    "no caption": "pairs.caption_column names the column of captions; without a table, the captions of IMAGE.jpg are "
    "the lines of IMAGE.txt; in tars, pairs.caption names the extension of the captions",
    "no image in the sample": "the image and the caption of a sample have one name up to the first dot, as 0000.jpg "
    "and 0000.txt; pairs.image_member names the extension of the images",
    "several images in the sample": 'pairs.image_member names the extension of the images, as "jpg" or "depth.png"',
    "several samples of that key": "an archive holds a file twice, and it is unclear which caption belongs to which "
    "image: write the shard again with each file once",
    "archive without an end": "a shard may be cut short: compare its size with the original, or write it again",
    "sample inside another sample": "names of one sample are equal up to the first dot, so that photo.jpg and "
    'photo.1.jpg belong together; with pairs.key_ends = "last dot" they are two samples',
    EMPTY: "pairs.caption_column names the column of captions",
    NO_TEXT: "a caption is a text or a list of texts: set pairs.caption_column to a column that holds these",
    "no bytes in the table": "the table holds the images' paths alone: write it with the images in it (by the library "
    "datasets: map(datasets.table.embed_table_storage, batched=True) in the format arrow, or push_to_hub), or set "
    'pairs.source = "folder" to read images that lie beside it',
    "no image of that name": "pairs.images names the folder or zip with the images that the annotations list",
    "several images of that name": "pairs.images names a zip or folder with one image of a name; in a zip, the folder "
    "pairs.subset comes first",
    "caption of an unlisted image": "image_id of an annotation is the id of an entry of images",
    "image without an id": "the id of an entry of images is a number or a text",
    "image without a file name": "the file_name of an entry of images is a text",
    "annotation without the key caption": "pairs.annotations names captions_<subset>.json",
    "annotation without an image id": "image_id of an annotation is the id of an entry of images",
}
MOST_CAUSES = 8  # causes that the error lists


def counted(dropped: Sequence[Dropped]) -> str:
    """Return the counts by cause, the most frequent first, each with an example: "2 no such file (e.g. 0.png)"."""
    first: dict[str, Dropped] = {}
    counts: dict[str, int] = {}
    for one in dropped:
        first.setdefault(one.cause, one)
        counts[one.cause] = counts.get(one.cause, 0) + 1
    causes = sorted(counts, key=lambda cause: (-counts[cause], cause))
    listed = [f"{counts[cause]:,} {cause} (e.g. {_example(first[cause])})" for cause in causes[:MOST_CAUSES]]
    rest = f"; {len(causes) - MOST_CAUSES} more causes" if len(causes) > MOST_CAUSES else ""
    return "; ".join(listed) + rest


def nothing_offered(name: str, identity: dict[str, Any], dropped: Sequence[Dropped]) -> BadInput:
    """Return the error of a source that offers no image-text pairs: what was left out, and what to set."""
    where = ", ".join(f"{key} = {value!r}" for key, value in identity.items())
    if not dropped:
        return BadInput(f"the source {name!r} holds no image-text pairs, and nothing was left out: {where}")
    advice = [f"{cause}: {ADVICE[cause]}" for cause in dict.fromkeys(one.cause for one in dropped) if cause in ADVICE]
    told = "".join(f"\n  {line}" for line in advice)
    return BadInput(f"the source {name!r} offers no image-text pairs ({where}). Left out: {counted(dropped)}{told}")


def _example(one: Dropped) -> str:
    return f"{one.source_key}: {one.detail}" if one.detail else one.source_key
