"""What a page needs to split the similarity of the image and the caption of a pair without a server.

The dictionary is one file of halves. Next to the codes of an item are the inner products of its embedding with the
directions of its own concepts and with those of its partner's, as integers of 16 bits: as numbers they would take 8 MB
of the demo instead of 3. The residual of an item is what its published codes and
directions leave of its embedding, so that it includes their rounding, and the terms sum to the similarity.
Definition: docs/definitions.md, "Pair ledger".
"""

from __future__ import annotations

import base64
from typing import Any
from zipfile import ZipFile

import numpy as np
import polars as pl

from report.explorer.shares import Dictionary, Floats
from storage.rows import Rows
from storage.site import put, put_json

FULL = 32767  # the integer that stands for an inner product of 1, the largest that two rows of norm 1 have
Record = dict[str, Any]
Halves = np.ndarray[Any, np.dtype[np.float16]]


def write_pairs(
    site: ZipFile, folder: str, dictionary: Dictionary, rows: Rows, codes: dict[int, Record], captions: pl.DataFrame
) -> None:
    """Write `folder/dictionary.bin`, and `folder/pairs/<n>.json` for every file of codes that holds a pair.

    rows: the embeddings of the model, of any norm. codes: the codes as they are written, by the number of their file.
    captions: pair_id, block and image of every caption shown. A pair is written if both of its items have codes.
    """
    halves = as_halves(dictionary)
    put(site, f"{folder}/dictionary.bin", halves.tobytes())
    for block, both in pairs_of(halves, rows, codes, captions).items():
        put_json(site, f"{folder}/pairs/{block}.json", both)


def pairs_of(halves: Halves, rows: Rows, codes: dict[int, Record], captions: pl.DataFrame) -> dict[int, Record]:
    """The content of the files of pairs, by their numbers. halves: the dictionary as it is written."""
    D = halves.astype(np.float64)
    places = {"images": _places(rows.image_id), "texts": _places(rows.pair_id)}
    blocks: dict[int, Record] = {}
    for pair_id, block, image_id in captions.select("pair_id", "block", "image").iter_rows():
        coded = codes.get(block, {"images": {}, "texts": {}})
        image, text = coded["images"].get(str(image_id)), coded["texts"].get(str(pair_id))
        if image is None or text is None or image_id not in places["images"] or pair_id not in places["texts"]:
            continue
        x = _unit(rows.image[places["images"][image_id]])
        y = _unit(rows.text[places["texts"][pair_id]])
        both = blocks.setdefault(block, {"images": {}, "texts": {}})
        # Of the last three rows, the decoder's bias and the mean of the other modality act on an item.
        both["images"].setdefault(str(image_id), _item(x, D, image["concept"], D[-1]))
        both["texts"][str(pair_id)] = _item(y, D, text["concept"], D[-2]) | {
            "similarity": float(f"{x @ y:.7g}"),
            "on_text": packed(D[text["concept"]] @ x),
            "on_image": packed(D[image["concept"]] @ y),
        }
    return blocks


def as_halves(dictionary: Dictionary) -> Halves:
    """The directions of the C concepts, the decoder's bias, the mean of images and that of captions: [C + 3, d]."""
    offsets = [dictionary.decoder, dictionary.means["image"], dictionary.means["text"]]
    return np.concatenate([dictionary.concepts, offsets]).astype("<f2")


def _item(x: Floats, D: Floats, concepts: list[int], mean: Floats) -> Record:
    return {
        "own": packed(D[concepts] @ x),
        "bias": float(f"{D[-3] @ x:.6g}"),
        "mean": float(f"{mean @ x:.6g}"),
    }


def _places(ids: np.ndarray[Any, Any]) -> dict[int, int]:
    return {item: place for place, item in enumerate(ids.tolist())}


def _unit(row: np.ndarray[Any, Any]) -> Floats:
    x = np.asarray(row, np.float64)
    return np.asarray(x / np.linalg.norm(x))


def packed(values: Floats) -> str:
    """Numbers in [-1, 1] as little-endian integers of 16 bits, FULL for 1, in base64."""
    return base64.b64encode(np.rint(np.clip(values, -1, 1) * FULL).astype("<i2").tobytes()).decode()
