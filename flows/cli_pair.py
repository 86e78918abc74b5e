"""The command `pair`: the similarity of an image and a caption as a sum, and what leaving out concepts does to it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.dataset import find_store
from storage.errors import BadInput


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the parser of the command `pair`."""
    pair = commands.add_parser(
        "pair", parents=parents, help="split the similarity of an image and a caption into concepts, bias and the rest"
    )
    pair.add_argument("image", metavar="IMAGE", help="an image_id of the study, or the path of a picture")
    pair.add_argument("caption", metavar="CAPTION", help="a pair_id of the study, or a text")
    pair.add_argument("--study", metavar="NAME", help="default: the store's only study")
    pair.add_argument("--sae", metavar="MODEL/SAE/SEED", help="default: the first of the study")
    pair.add_argument(
        "--without",
        metavar="I,J,...",
        help="concepts to leave out; random ones of equal energy are left out for comparison",
    )
    pair.add_argument("--top", type=int, default=20, metavar="N", help="pairs of concepts to print (default: 20)")
    pair.add_argument("--json", action="store_true", help="print JSON, with all pairs of concepts")
    pair.set_defaults(command=pair_command)


def pair_command(arguments: argparse.Namespace) -> int:
    """`bridgescope pair`: print the ledger of an image and a caption."""
    from explorer.encode import Encoders
    from explorer.pairs import Pairs
    from storage.catalog import the_only_study
    from storage.runs import shown_run

    store, left_out = find_store(arguments.store), concepts_of(arguments.without)
    image, caption = image_of(arguments.image), _id_or(arguments.caption)
    name = arguments.study or the_only_study(store)
    run = shown_run(store, name, arguments.run, arguments.variant)
    keys = [f"{entry.model}/{entry.sae}/{entry.seed}" for entry in run.of("train")]
    if not keys:
        raise BadInput(f"{run} has no SAE: {run.absent()}")
    key = arguments.sae or keys[0]
    if key not in keys:
        raise BadInput(f"--sae {key}: no SAE of this name in study {name}. Available: {', '.join(keys)}.")
    print(f"study {name}, {run}, SAE {key}", file=sys.stderr)
    answer = Pairs(Encoders(store, run)).pair(key, image, caption, left_out)
    print(json.dumps(answer, indent=1) if arguments.json else "\n".join(told(answer, arguments.top)))
    return 0


def concepts_of(text: str | None) -> list[int]:
    """The concepts that the option --without names. Raises BadInput unless they are whole numbers."""
    words = [word.strip() for word in (text or "").split(",")] if text is not None else []
    if wrong := [word for word in words if not (word.isascii() and word.isdecimal() and len(word) < 10)]:
        raise BadInput(f"--without {text}: {wrong[0]!r} is no concept; give whole numbers, as in --without 3,17")
    return [int(word) for word in words]


def image_of(text: str) -> int | bytes:
    """An image_id, or the bytes of a picture. Raises BadInput for a file that cannot be read."""
    given = _id_or(text)
    if isinstance(given, int):
        return given
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise BadInput(f"picture {given}: {error.strerror}; an image of the study is named by its image_id") from error


def _id_or(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def told(answer: dict[str, Any], top: int) -> Iterator[str]:
    """The ledger of a pair in words, with its `top` largest pairs of concepts."""
    rows = answer["rows"]
    yield f"similarity {answer['similarity']:.4f}, the sum of"
    for term, value in answer["terms"].items():
        count = f"  ({len(rows):,} pairs of concepts)" if term == "concepts" else ""
        yield f"  {term:16} {value:9.4f}{count}"
    shown = rows[: max(top, 0)]
    if shown:
        yield "image concept  text concept  contribution"
    for row in shown:
        yield f"{row['image_concept']:13}  {row['text_concept']:12}  {row['contribution']:12.4f}"
    if rest := rows[len(shown) :]:
        yield f"the other {len(rest):,} pairs of concepts sum to {sum(row['contribution'] for row in rest):.4f}"
    gallery = answer["gallery"]
    yield (
        f"ranks among {gallery['images']:,} held-out images and their {gallery['captions']:,} captions; cosines within "
        f"{gallery['tie']:g} count as equal, and against the pair"
    )
    yield from _what_if(answer["before"], answer["what_if"])


def _what_if(before: dict[str, Any], found: dict[str, Any] | None) -> Iterator[str]:
    """The results of a pair, and those without the concepts that were left out, beside random sets."""
    names = {
        "similarity": "similarity", "inner": "inner product", "caption": "rank of the caption",
        "image": "rank of the image",
    }  # fmt: skip
    if found is None:
        for name, words in names.items():
            if name != "inner":
                yield f"{words:20} {_shown(before[name])}"
        return
    energy = found["random"]["energy"]
    yield (
        f"without the concepts {', '.join(map(str, found['concepts']))}, of energy {found['energy']:.4f} in the pair, "
        f"beside {found['draws']} random sets of energy {energy['low']:.4f} to {energy['high']:.4f}; each left out of "
        "every item"
    )
    yield f"{'':20} {'all concepts':>20} {'without':>20}   random sets: mean (lowest to highest)"
    for name, words in names.items():
        one = found["random"][name]
        digits = 1 if name in ("caption", "image") else 4
        low, high = (f"{one[end]:.{0 if digits == 1 else 4}f}" for end in ("low", "high"))
        chance = f"{one['mean']:.{digits}f} ({low} to {high})"
        yield f"{words:20} {_shown(before[name]):>20} {_shown(found['after'][name]):>20}   {chance}"


def _shown(figure: float | dict[str, int]) -> str:
    """A result, or a rank with its ties."""
    if isinstance(figure, dict):
        return f"{figure['rank']:,} ({figure['tied']:,} tied)" if figure["tied"] else f"{figure['rank']:,}"
    return f"{figure:.4f}"
