"""Write a store with a finished study at the paper's scale, with drawn codes in place of a trained SAE's.

python bench/plant_activations.py --store DIR [--images 118000] [--captions 600000] [--k 20] [--width 8192] [--whole]

The rates of concepts follow a Zipf law; three eighths fire on images only, three eighths on captions only, a quarter on
both. Each concept that fires on images only has a partner among those that fire on captions only. A caption has the
partners of some of its image's concepts, so that there are bridges to find.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from sae.model import SAE, Config
from storage.activations import Activations, write_activations
from storage.dataset import Address, Dataset, materialize
from storage.embeddings import finish, write_modality
from storage.listing import LABELS
from storage.pairs import CAPTIONS, IMAGES
from storage.record import write_run
from storage.runs import Entry, Run
from tasks.export import atoms
from tasks.stage import Runtime

STUDY, MODEL, SETTING, SEED = "paper-scale", "planted", "main", 0
COPIED = 0.3  # share of a caption's codes that are partners of its image's concepts
CHANGED = 0.3  # share of the codes of every SAE but the first that are drawn anew
ZIPF = 0.8
VOCABULARY, LENGTH = 25_000, 11  # words in the captions of COCO, and words per caption


class Planted(NamedTuple):
    """Codes of both modalities, k per row, and the image of each caption."""

    image: np.ndarray  # [n, k] int32 concepts, ascending, without repeats
    text: np.ndarray  # [m, k]
    owner: np.ndarray  # [m] rows of image, ascending


def plant(images: int, captions: int, k: int, width: int, seed: int = 0) -> Planted:
    """Draw the concepts of every item."""
    random = np.random.default_rng(seed)
    order = random.permutation(width)
    weight = 1 / np.arange(1, width + 1) ** ZIPF
    eighth = width // 8
    allowed = {"image": np.r_[order[: 5 * eighth]], "text": np.r_[order[3 * eighth :]]}  # two eighths serve both
    partner = np.arange(width)
    partner[order[: 3 * eighth]] = order[5 * eighth : 8 * eighth]
    owner = np.sort(np.concatenate([np.arange(images), random.integers(0, images, captions - images)]))
    image = _draw(random, allowed["image"], weight, images, k)
    text = _draw(random, allowed["text"], weight, captions, k)
    copied = random.random((captions, k)) < COPIED
    text[copied] = partner[image[owner]][copied]
    return Planted(_distinct(image, width), _distinct(text, width), owner)


def _draw(random: np.random.Generator, concepts: np.ndarray, weight: np.ndarray, rows: int, k: int) -> np.ndarray:
    shares = np.cumsum(random.permutation(weight)[: len(concepts)])
    return concepts[np.searchsorted(shares, random.random((rows, k)) * shares[-1])].astype(np.int32)


def _distinct(concepts: np.ndarray, width: int) -> np.ndarray:
    """Sort each row; a concept drawn twice is replaced by the next free concept, so that every row keeps k."""
    concepts.sort(axis=1)
    while (twice := np.diff(concepts, axis=1) == 0).any():
        concepts[:, 1:][twice] = (concepts[:, 1:][twice] + 1) % width
        concepts.sort(axis=1)
    return concepts


def write(
    planted: Planted,
    store: Path,
    width: int,
    dim: int = 512,
    seed: int = 0,
    *,
    seeds: int = 1,
    embedded: bool = False,
    changed: float = 0.0,
    labelled: bool = False,
) -> Run:
    """Write pairs, SAEs and activations as datasets of a new run. Returns the run.

    seeds: number of SAEs. changed: share of the codes of every SAE but the first that are drawn anew; all other codes
    are of the items on which the first SAE fires. embedded: write random embeddings of the pairs too. labelled:
    captions are words of a vocabulary, and images have categories, as many as those of COCO.
    """
    random = np.random.default_rng(seed + 1)
    at = {"images": len(planted.image), "captions": len(planted.text), "width": width}
    if labelled:
        at["labelled"] = 1

    def made(folder: str, body: Callable[[Path], int], **more: int) -> Dataset:
        return materialize(store, Address(folder, "bench", {**at, **more}, ()), body)

    store.mkdir(parents=True, exist_ok=True)
    entries = [
        Entry(kind="acquire", shard=0, dataset=made("pairs", lambda out: _pairs(out, planted, random, labelled)))
    ]
    if labelled:
        entries.append(Entry(kind="labels", dataset=made("labels", lambda out: _labels(out, planted, random))))
    if embedded:
        dataset = made("embeddings", lambda out: _embeddings(out, planted, dim, random))
        entries.append(Entry(kind="embed", model=MODEL, shard=0, dataset=dataset))
    for number in range(SEED, SEED + seeds):
        of = {"model": MODEL, "sae": SETTING, "seed": number}
        more = {"seed": number} if number != SEED else {}
        own = planted if number == SEED or not changed else _redrawn(planted, changed, width, number)
        dataset = made("saes", lambda out, n=number: _sae(out, planted, width, dim, n, random), **more)
        entries.append(Entry(kind="train", **of, dataset=dataset))
        table = made("atoms", lambda out, d=dataset: atoms.body(out, d, Runtime(store=store)), **more)
        entries.append(Entry(kind="atoms", **of, dataset=table))
        dataset = made("activations", lambda out, codes=own: _activations(out, codes, random), **more)
        entries.append(Entry(kind="export", **of, shard=0, dataset=dataset))
    config = {"name": STUDY, "pairs": {"source": "embeddings", "heldout": 0.0}, "models": [], "saes": []}
    return write_run(store, Run(study=STUDY, config=config, entries=entries, started="", seconds=0.0, versions={}))


def _redrawn(planted: Planted, share: float, width: int, seed: int) -> Planted:
    """The codes with a share of them replaced by concepts that fire on other items of the same modality."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))

    def drawn(concepts: np.ndarray) -> np.ndarray:
        other = concepts[random.permutation(len(concepts))]
        return _distinct(np.where(random.random(concepts.shape) < share, other, concepts), width)

    return Planted(drawn(planted.image), drawn(planted.text), planted.owner)


def _pairs(out: Path, planted: Planted, random: np.random.Generator, labelled: bool) -> int:
    images, captions = len(planted.image), len(planted.text)
    keys = [f"image-{i:06d}" for i in range(images)]
    columns = {
        "image_id": np.arange(images), "source_key": keys, "group_key": keys,
        "split_u": random.random(images),
    }  # fmt: skip
    empty = {name: pa.nulls(images, kind) for name, kind in zip(IMAGES.names, IMAGES.types, strict=True)}
    pq.write_table(pa.table({**empty, **columns}, schema=IMAGES), out / "images.parquet")
    names = [f"caption {j}" for j in range(captions)]
    columns = {
        "pair_id": np.arange(captions), "image_id": planted.owner,
        "caption": _sentences(random, captions) if labelled else names, "source_key": names,
    }  # fmt: skip
    pl.DataFrame(columns, schema=CAPTIONS).write_parquet(out / "captions.parquet")
    return images


def _sentences(random: np.random.Generator, count: int) -> list[str]:
    """Captions of COCO's length: LENGTH words each, of a vocabulary whose frequencies follow Zipf's law."""
    weight = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(letters[random.integers(0, 26, random.integers(2, 10))]) for _ in range(VOCABULARY)]
    drawn = np.searchsorted(weight, random.random((count, LENGTH)) * weight[-1])
    return [" ".join(words[at] for at in row) for row in drawn.tolist()]


def _labels(out: Path, planted: Planted, random: np.random.Generator) -> int:
    """An image has three of 80 categories on average; the rarest is on one image of 600, as in COCO."""
    rates = np.clip(random.lognormal(-3.8, 1, 80), 0.0017, 0.5)
    image, category = np.nonzero(random.random((len(planted.image), 80)) < rates * 3 / rates.sum())
    of = {"source_key": [f"image-{i:06d}" for i in image], "name": "category", "label": [f"{c:02d}" for c in category]}
    pl.DataFrame(of, schema=LABELS).write_parquet(out / "labels.parquet")
    return len(image)


def _embeddings(out: Path, planted: Planted, dim: int, random: np.random.Generator) -> int:
    """Gaussian rows whose two modalities have different means."""
    for modality, rows, side in (("image", len(planted.image), 0.5), ("text", len(planted.text), -0.5)):
        vectors = random.standard_normal((rows, dim)).astype(np.float32) + np.float32(side)
        write_modality(out, modality, rows, dim, lambda start, stop, x=vectors: x[start:stop], lambda done: None)
    finish(out, {"failed_rows": [], "model": {}})
    return len(planted.image) + len(planted.text)


def _sae(out: Path, planted: Planted, width: int, dim: int, seed: int, random: np.random.Generator) -> int:
    shared = random.standard_normal((1, dim))
    D = torch.tensor(random.standard_normal((width, dim)) + shared, dtype=torch.float32)
    D = torch.nn.functional.normalize(D, dim=1)
    config = Config(
        architecture="batchtopk", dim=dim, width=width, k=planted.image.shape[1], decoder_bias=True,
        image_share=0.5, seed=seed, epochs=1, batch_size=1, learning_rate=1.0, auxk=0.0, dead_after_epochs=0.5,
        rows_seen=len(planted.image),
    )  # fmt: skip
    SAE(D.clone(), torch.zeros(width), D, torch.zeros(dim), torch.tensor(0.0), config).save(out)
    pl.DataFrame({"step": [1], "epoch": [1.0], "loss": [0.0], "r2": [0.0], "l0": [0.0], "dead_fraction": [0.0],
                  "rows_per_second": [0.0]}).write_parquet(out / "training.parquet")  # fmt: skip
    return len(planted.image)


def _activations(out: Path, planted: Planted, random: np.random.Generator) -> int:
    codes = []
    for concepts in (planted.image, planted.text):
        rows, k = concepts.shape
        items = np.repeat(np.arange(rows), k)
        codes.append(Activations(items, concepts.ravel(), random.exponential(0.1, rows * k).astype(np.float32) + 1e-4))
    return write_activations(out / "0.parquet", *codes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--captions", type=int, default=600_000)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--whole", action="store_true", help="three SAEs, embeddings, captions of words and labels")
    arguments = parser.parse_args()
    planted = plant(arguments.images, arguments.captions, arguments.k, arguments.width)
    more = {"seeds": 3, "embedded": True, "changed": CHANGED, "labelled": True} if arguments.whole else {}
    run = write(planted, arguments.store, arguments.width, **more)
    counts = f"{arguments.images} images, {arguments.captions} captions, {arguments.k} codes each"
    print(f"{counts} -> run {run.number} of {run.study}")


if __name__ == "__main__":
    main()
