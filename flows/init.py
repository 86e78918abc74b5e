"""`bridgescope init`: write a study file for the user's data, with comments, and settings for the size of the data."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from flows.config import load_study
from flows.init_model import Chosen, choose
from flows.looking import Found, look
from storage.errors import BadInput
from storage.sources import Listing
from storage.sources.registry import SECTIONS
from tasks.progress import Ticking
from tasks.settings import budget
from tasks.specs import Spec

FEW_HELDOUT = 200  # with fewer images held out, every result is coarse


class Written(NamedTuple):
    """A study file that was written."""

    path: Path
    seen: list[str]  #: sentences that tell the user what was found in the data


class Settings(NamedTuple):
    """Settings that fit the size of the data."""

    heldout: float
    shard_size: int
    width: int
    k: int
    min_pairs: int
    images: int  #: training images, up to the chance of the split
    rows: int  #: training rows: images and captions, up to the chance of the split


def write_study_file(
    path: Path,
    *,
    model: str | None = None,
    name: str | None = None,
    to: Path | None = None,
    store: Path | None = None,
    force: bool = False,
) -> Written:
    """Look at the data at a path and write a study file for it.

    model: a spec, or a folder that holds a checkpoint; None stands for CLIP, or for the vectors.
    store: keeps what a run would read again (digests, unpacked tars); without a store, this is thrown away.

    Raises BadInput for data that is of no known kind or holds no pairs, for a model that is not there, and for a file
    that exists, unless `force` is set. No study file is written before it is valid.
    """
    found = look(path)
    listing = _listed(path, found, store)
    study = name or _slug(path.resolve().stem if path.is_file() else path.resolve().name)
    target = (to or Path(f"{study}.toml")).resolve()
    if target.exists() and not force:
        raise BadInput(f"{target}: exists: --force replaces it, --to FILE names another")
    if not target.parent.is_dir():
        raise BadInput(f"{target}: there is no folder {target.parent}")
    chosen = _model(model, found, target)
    images, captions = len(listing.items), sum(len(item.captions) for item in listing.items)
    own = _settings(images, captions, chosen.dim)
    seen = _seen(found, listing, images, captions, own)
    text = _text(study, found, chosen, seen, own, target)
    _write(text, target, force=force)
    return Written(target, seen)


def _model(model: str | None, found: Found, target: Path) -> Chosen:
    """The model of the study. Raises BadInput for vectors with an encoder, and for pictures with vectors."""
    if found.vectors and model is None:
        return Chosen(Spec("embeddings", found.keys["path"]), found.vectors.dim)
    chosen = choose(model or "clip", target.parent)
    if chosen.spec.is_vectors != (found.vectors is not None):
        takes = "vectors are used as they are: leave it out" if found.vectors else "pictures need an encoder"
        raise BadInput(f"--model {model}: {takes}")
    return chosen._replace(dim=found.vectors.dim) if found.vectors else chosen


def _listed(path: Path, found: Found, store: Path | None) -> Listing:
    """The pairs of the source, listed as a run would. Raises BadInput where there are none."""
    try:
        section = SECTIONS[found.source].model_validate({"source": found.source, **found.keys})
    except ValidationError as error:
        raise BadInput(f"{path}: {error.errors()[0]['msg']}") from error
    with contextlib.ExitStack() as held:
        held.enter_context(contextlib.closing(Ticking(f"reading {path}")))
        kept = store or Path(held.enter_context(tempfile.TemporaryDirectory()))
        listing = section.open(kept).list()
    if len(listing.items) < 2:
        causes = Counter(dropped.cause for dropped in listing.dropped)
        why = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
        raise BadInput(
            f"{path}: recognised as {found.why}, but it holds {len(listing.items)} pairs"
            + (f"; left out: {why}, the first is {listing.dropped[0].source_key}" if why else "")
        )
    return listing


def _seen(found: Found, listing: Listing, images: int, captions: int, own: Settings) -> list[str]:
    """Sentences that tell the user what was found in the data."""
    lines = [
        f"Recognised by {found.why}.",
        f"{images:,} images with {captions:,} captions, {captions / images:.1f} per image.",
    ]
    if found.vectors:
        lines.append(f"The vectors have {found.vectors.dim} dimensions.")
    causes = Counter(dropped.cause for dropped in listing.dropped)
    lines += [f"Left out: {count:,} items, {cause}." for cause, count in causes.most_common(3)]
    if images - own.images < FEW_HELDOUT:
        lines += [
            f"Little data: only about {images - own.images:,} images are held out, so every result is coarse.",
            "Compare each with its chance level; 1,000 images and more give more reliable results.",
        ]
    return lines


def _settings(images: int, captions: int, dim: int) -> Settings:
    """Settings for data of this size. They agree with those of the studies demo, quick and paper."""
    heldout = 0.2 if images < 50_000 else 0.1
    width = 2 ** round(math.log2(max(16, (1 - heldout) * images / 5)))
    width = max(16, min(width, 4096, 2 ** int(math.log2(8 * dim))))
    k = next(k for most, k in ((64, 4), (256, 8), (1024, 16), (math.inf, 20)) if width <= most)
    shard_size = 1024 if images < 10_000 else 8192
    kept = 1 - heldout
    training = round(kept * images), round(kept * (images + captions))
    return Settings(heldout, shard_size, width, k, 10 if heldout * captions >= 300 else 2, *training)


def _text(study: str, found: Found, chosen: Chosen, seen: list[str], own: Settings, target: Path) -> str:
    """The text of the study file."""
    pairs = {"source": found.source} | {key: _placed(found, key, value, target) for key, value in found.keys.items()}
    keys = "\n".join(f"{key} = {_toml(value)}" for key, value in pairs.items())
    about = "\n".join(f"# {line}" for line in seen)
    spec = chosen.spec
    model = "own" if found.vectors else _slug(re.split(r"[/@]", str(spec).rpartition(":")[2].rstrip("/"))[-1])
    why_model = (
        "# The vectors are used as they are; rows are divided by their norms."
        if found.vectors
        else "# Also siglip, siglip2, aimv2, open_clip:NAME/WEIGHTS, hf:OWNER/NAME. Several models are compared."
    )
    located = spec if spec.path is None else spec.with_path(_relative(spec.path, target))
    return f"""# Written by `bridgescope init`. What it saw:
{about}
name = {_toml(study)}

[pairs]
{keys}
heldout = {own.heldout}           # share of the images that no SAE is trained on; every result is measured on them
shard_size = {own.shard_size}       # images per shard, the unit in which work is resumed

{why_model}
[[models]]
name = {_toml(model)}
spec = {_toml(str(located))}

[[saes]]
name = "main"
architecture = "batchtopk"
# The power of two nearest to one concept per 5 of the {own.images:,} training images, at least 16, and at most 8 per
# dimension (the model has {chosen.dim}) or 4,096. On few images a wider dictionary overfits: R2 rises on
# the training rows and falls on those held out.
width = {own.width}
k = {own.k}                    # concepts per row, on average; more of them raise R2 and make each less specific
{_training(own)}
epochs = "auto"
batch_size = "auto"
learning_rate = "auto"
noise = "auto"           # added to each row that is drawn, so that rows drawn often are not learned by heart
decoder_bias = true      # starts at the geometric median: embeddings are not centred, and concepts die without it
image_share = 0.5        # half of the rows drawn are images, however many captions an image has
seeds = [0, 1, 2]        # several seeds tell which concepts are stable

[analyze]
split = "heldout"
min_pairs = {own.min_pairs}           # bridges between concepts that fire together on fewer pairs are not stored
"""


def _training(own: Settings) -> str:
    """A comment with the numbers that "auto" stands for, for data of this size."""
    numbers = budget(own.rows, own.width)
    steps = numbers.epochs * math.ceil(own.rows / numbers.batch_size)
    return (
        f'# "auto" is chosen from the training rows and the width when the study runs. For these {own.rows:,} rows:\n'
        f"# {numbers.epochs} epochs of batches of {numbers.batch_size} (near the square root of the rows) make about "
        f"{steps:,} steps, with a\n# learning rate of {numbers.learning_rate:g} and noise of {numbers.noise:g}."
    )


def _placed(found: Found, key: str, value: Any, target: Path) -> Any:
    """The value for a key of [pairs]; a path is made relative to the study file."""
    section = SECTIONS[found.source]
    if key not in section.paths:
        return value
    return [_relative(one, target) for one in value] if isinstance(value, list) else _relative(value, target)


def _relative(path: str, target: Path) -> str:
    """A path relative to the folder of the study file, beginning with a dot."""
    relative = os.path.relpath(path, target.parent)
    return relative if relative.startswith(".") else f"./{relative}"


def _toml(value: Any) -> str:
    """A string, a list of strings, or a truth value as TOML. JSON is written, since TOML has its escapes and words."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _slug(text: str) -> str:
    """Turn a text into a name for a study, which has only lower-case letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "study"


def _write(text: str, target: Path, *, force: bool) -> None:
    """Write a study file if it is valid. Without `force`, a file that appeared in the meantime is kept."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        _check(partial, target)
        if force:
            os.replace(partial, target)
        else:
            os.link(partial, target)
    except UnicodeEncodeError as error:
        raise BadInput(f"{target}: a path is not valid Unicode: {error.object[error.start : error.end]!r}") from error
    except FileExistsError as error:
        raise BadInput(f"{target}: exists: --force replaces it, --to FILE names another") from error
    except OSError as error:
        raise BadInput(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _check(partial: Path, target: Path) -> None:
    """Read a study file as a run would. Raises BadInput, which names the file that is to be written."""
    try:
        load_study(partial)
    except BadInput as error:
        raise BadInput(str(error).replace(str(partial), str(target))) from error
