"""Write the explorer's data files of an invented study, with any number of concepts and bridges, in clusters.

python bench/plant_explorer.py --to DIR [--concepts 8192] [--bridges 20000] [--images 1024] [--seeds 2] [--mapped 0]

The files serve to measure how fast the map draws and moves at the paper's scale, for which the demo is too small. Their
types are stated in explorer/web/src/contract.ts.
"""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from report.explorer.item_maps import ItemMap, packed, packed_firings, packed_items
from report.explorer.pairs import as_halves, pairs_of
from report.explorer.places import FITTED
from report.explorer.release import handed_out
from report.explorer.shares import Dictionary
from storage.rows import Rows

MODEL, SETTING, STUDY = "planted", "main", "planted"
STATISTICS = "statistics/saes.csv"
DIM = 64  # of the planted embeddings
CAPTIONS, TOP, BINS = 2, 24, 20  # captions per image; items in a concept's lists; bins of a histogram
ITEM_BLOCK, CONCEPT_BLOCK, SIDE = 64, 64, 96  # images per file; concepts per file; pixels of a thumbnail's side
EMPTY: dict[str, list[float]] = {"concept": [], "correlation": []}
KINDS = ("circle", "square", "ring", "bar")
COLOURS = ("crimson", "teal", "goldenrod", "slateblue", "seagreen", "orchid", "tomato", "steelblue")
Files = dict[str, Any]


class Scale(NamedTuple):
    """Size of the planted study."""

    concepts: int = 8192
    bridges: int = 20_000
    images: int = 1024
    seeds: int = 2
    mapped: int = 0  # items on the map; 0: the images and their captions. Items beyond these have no page


def plant(to: Path, scale: Scale) -> None:
    """Write data/ and thumbs/ below `to`."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, len(KINDS), scale.images)
    colours = random.integers(0, len(COLOURS), scale.images)
    captions = [
        f"a {COLOURS[colour]} {KINDS[kind]}{', drawn small' if second else ''}"
        for kind, colour in zip(kinds, colours, strict=True)
        for second in range(CAPTIONS)
    ]
    write_thumbs(to / "thumbs", kinds, colours)
    write_items(to, scale.images, captions)
    runs = [write_run(to, scale, seed) for seed in range(scale.seeds)]
    write(to, "data/labels.json", {"labels": []})
    write(to, "data/compare.json", {"findings": [], "figures": [], "settings": []})
    maps = write_item_maps(to, scale, runs)
    statistics = csv_of(runs)
    put(to, STATISTICS, statistics)
    of_site = {"maps": maps, "firings": scale.mapped == 0, "files": [{"path": STATISTICS, "bytes": len(statistics)}]}
    write(to, "data/manifest.json", manifest(scale, runs) | of_site)
    write(to, "data/catalog.json", {"views": [], "macros": [], "examples": []})


def csv_of(runs: list[Files]) -> bytes:
    """The runs as CSV, in the place of a published table."""
    rows = [",".join(runs[0]), *(",".join(str(value) for value in run.values()) for run in runs)]
    return "\n".join(rows).encode()


def write(to: Path, name: str, value: Any) -> None:
    """Write one file as compactly as the exporter does."""
    path = to / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False), encoding="utf-8")


def manifest(scale: Scale, runs: list[Files]) -> Files:
    """The first file that the explorer reads, as a host serves it."""
    stored = {
        "schema": 1,
        "live": False,
        "study": STUDY,
        "items": True,
        "title": f"{scale.concepts} planted concepts",
        "pairs": {"images": scale.images, "captions": scale.images * CAPTIONS, "licence": None},
        "split": "heldout",
        "runs": runs,
        "item_block": ITEM_BLOCK,
        "concept_block": CONCEPT_BLOCK,
    }
    return handed_out(stored)


def write_thumbs(folder: Path, kinds: np.ndarray, colours: np.ndarray) -> None:
    """Write one thumbnail per image: one shape in one colour. Equal thumbnails are drawn once."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(zip(kinds.tolist(), colours.tolist(), strict=True))
    drawn = {(kind, colour): picture(KINDS[kind], COLOURS[colour]) for kind, colour in set(pairs)}
    for image, pair in enumerate(pairs):
        (folder / f"{image}.webp").write_bytes(drawn[pair])


def picture(kind: str, colour: str) -> bytes:
    """A WebP thumbnail."""
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    draw, box = ImageDraw.Draw(canvas), (16, 16, 80, 80)
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "square":
        draw.rectangle(box, fill=colour)
    elif kind == "ring":
        draw.ellipse(box, outline=colour, width=12)
    else:
        draw.rectangle((16, 38, 80, 58), fill=colour)
    out = io.BytesIO()
    canvas.save(out, "WEBP", quality=80)
    return out.getvalue()


def write_items(to: Path, images: int, captions: list[str]) -> None:
    """Write the files of images with their captions, the index of these files, and the captions for the search."""
    blocks: dict[int, Files] = {}
    index: Files = {"images": {}, "texts": {}}
    for image in range(images):
        at = image // ITEM_BLOCK
        block = blocks.setdefault(at, {"images": {}, "texts": {}})
        own = list(range(image * CAPTIONS, (image + 1) * CAPTIONS))
        block["images"][str(image)] = {
            "key": f"planted-{image}", "width": SIDE, "height": SIDE, "captions": own,
            "thumb": f"thumbs/{image}.webp", "split": "heldout",
        }  # fmt: skip
        block["texts"] |= {str(c): {"caption": captions[c], "image": image, "split": "heldout"} for c in own}
        index["images"][str(image)] = at
        index["texts"] |= {str(c): at for c in own}
    for at, block in blocks.items():
        write(to, f"data/items/{at}.json", block)
    write(to, "data/items/index.json", index)
    write(to, "data/items/search.json", {"id": list(range(len(captions))), "caption": captions})


def write_item_maps(to: Path, scale: Scale, runs: list[Files]) -> list[Files]:
    """Write the item maps, by embeddings and by codes, and the firings of every run. Returns rows of the
    manifest.

    The items lie in clusters. A concept fires on the items of one cluster.
    """
    random = np.random.default_rng(7)
    images = scale.mapped // (1 + CAPTIONS) if scale.mapped else scale.images
    count = scale.mapped or scale.images * (1 + CAPTIONS)
    ids = np.concatenate([np.arange(images), np.arange(count - images)])
    clusters = max(8, min(400, count // 200))
    cluster = random.integers(0, clusters, count)
    groups = np.concatenate([np.arange(images), np.arange(count - images) // CAPTIONS]) % 20
    maps = []
    for sae, seed in ((None, None), (SETTING, 0)):
        centres = random.uniform(-0.9, 0.9, (clusters, 2))
        places = np.clip(centres[cluster] + random.normal(0, 0.04, (count, 2)), -1, 1)
        of = ItemMap(
            MODEL, sae, seed, ids, images, places, "umap-sample" if scale.mapped else "umap", min(count, FITTED)
        )
        put(to, of.file, packed(places))
        put(to, of.described()["ids"], packed_items(ids, groups))
        maps.append(of.described())
    if not scale.mapped:
        members = [np.flatnonzero(cluster == number) for number in range(clusters)]
        for run in runs:
            for first in range(0, scale.concepts, CONCEPT_BLOCK):
                shown = range(first, min(first + CONCEPT_BLOCK, scale.concepts))
                item = np.concatenate([members[concept % clusters] for concept in shown])
                concept = np.concatenate([np.full(len(members[c % clusters]), c) for c in shown])
                data = packed_firings(concept, item, random.exponential(0.3, len(item)), first)
                put(to, f"data/runs/{run['key']}/codes/firings-{first // CONCEPT_BLOCK}.bin", data)
    return maps


def put(to: Path, name: str, data: bytes) -> None:
    """Write one binary file."""
    (to / name).parent.mkdir(parents=True, exist_ok=True)
    (to / name).write_bytes(data)


def write_run(to: Path, scale: Scale, seed: int) -> Files:
    """Write all files of one run. Returns its row of the manifest."""
    random = np.random.default_rng(seed + 1)
    key, count = f"{MODEL}/{SETTING}/{seed}", scale.concepts
    others = [f"{MODEL}/{SETTING}/{other}" for other in range(scale.seeds) if other != seed]
    concepts = planted_concepts(random, count)
    stability = concepts["stability"]
    folder = f"data/runs/{key}"
    write(to, f"{folder}/concepts.json", concepts)
    write(to, f"{folder}/words.json", {str(i): name.replace(",", "") for i, name in enumerate(concepts["name"])})
    write(to, f"{folder}/bridges.json", planted_bridges(random, concepts, scale.bridges))
    for first in range(0, count, CONCEPT_BLOCK):
        block = {
            str(i): detail(random, i, scale.images, concepts["name"][i], others, stability[i])
            for i in range(first, min(first + CONCEPT_BLOCK, count))
        }
        write(to, f"{folder}/concept/{first // CONCEPT_BLOCK}.json", block)
    coded = {}
    for first in range(0, scale.images, ITEM_BLOCK):
        images = range(first, min(first + ITEM_BLOCK, scale.images))
        texts = range(first * CAPTIONS, images.stop * CAPTIONS)
        block = {"images": {str(i): codes(random, count) for i in images}}
        coded[first // ITEM_BLOCK] = block | {"texts": {str(t): codes(random, count) for t in texts}}
        write(to, f"{folder}/codes/{first // ITEM_BLOCK}.json", coded[first // ITEM_BLOCK])
    write_pairs(to / folder, random, count, coded)
    return {
        "key": key, "layout": "umap", "model": MODEL, "sae": SETTING, "seed": seed, "concepts": count, "dim": DIM,
        "k": 20, "architecture": "batchtopk", "r2": 0.7, "r2_image": 0.65, "r2_text": 0.6, "l0": 20.0,
        "dead_fraction": 0.0, "stability": float(np.mean(stability)), "floor_random": 0.15, "floor_matched": 0.2,
        "bridges": scale.bridges,
    }  # fmt: skip


def write_pairs(folder: Path, random: np.random.Generator, count: int, coded: Files) -> None:
    """Write a dictionary of random directions, and pairs of items that are their decoded codes and noise."""
    directions = random.normal(size=(count, DIM))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bias = random.normal(0, 0.3 / DIM**0.5, DIM)
    zero = np.zeros(DIM)
    means = {"image": zero, "text": zero}
    halves = as_halves(Dictionary(directions, {"image": bias, "text": bias}, bias, means))
    (folder / "dictionary.bin").write_bytes(halves.tobytes())
    rows: dict[str, dict[int, np.ndarray]] = {"images": {}, "texts": {}}
    for block in coded.values():
        for kind, items in block.items():
            for item, code in items.items():
                decoded = np.asarray(code["activation"]) @ directions[code["concept"]] + bias
                rows[kind][int(item)] = decoded + random.normal(0, 0.5 / DIM**0.5, DIM)
    image, text = (np.stack(list(rows[kind].values())) for kind in ("images", "texts"))
    ids, pair_ids = (np.array(list(rows[kind]), np.int64) for kind in ("images", "texts"))
    owner = pair_ids // CAPTIONS
    captions = pl.DataFrame({"pair_id": pair_ids, "block": owner // ITEM_BLOCK, "image": owner})
    embeddings = Rows(image, text, ids, pair_ids, owner, np.zeros(len(ids)))
    for at, block in pairs_of(halves, embeddings, coded, captions).items():
        write(folder, f"pairs/{at}.json", block)


def planted_concepts(random: np.random.Generator, count: int) -> Files:
    """Concepts in clusters that lean to one modality or the other; energies follow a power law."""
    clusters = max(12, count // 96)
    cluster = random.integers(0, clusters, count)
    angle, far = random.uniform(0, 2 * np.pi, clusters), np.sqrt(random.uniform(0, 1, clusters)) * 0.86
    places = np.stack([far * np.cos(angle), far * np.sin(angle)], axis=1)[cluster] + random.normal(0, 0.035, (count, 2))
    places = np.clip(places, -1, 1)
    lean = random.beta(0.35, 0.35, clusters)
    score = np.clip(lean[cluster] + random.normal(0, 0.08, count), 0, 1)
    energy = 0.05 / np.arange(1, count + 1) ** 0.6
    random.shuffle(energy)
    words = [f"{COLOURS[i % len(COLOURS)]}, {KINDS[i % len(KINDS)]}, family {i}" for i in cluster]
    alignment = np.clip((score - 0.5) * 0.6 + random.normal(0, 0.08, count), -1, 1)
    stability = np.clip(0.3 + 0.5 * (energy / energy.max()) ** 0.3 + random.normal(0, 0.08, count), 0, 1)
    numbers = {
        "x": places[:, 0], "y": places[:, 1], "energy": energy, "energy_image": 2 * energy * score,
        "energy_text": 2 * energy * (1 - score), "rate_image": score * 0.05, "rate_text": (1 - score) * 0.05,
        "modality_score": score, "modality_auc": 0.5 + (score - 0.5) * 0.1,
        "direction_accuracy": 0.5 + abs(alignment) / 2,
        "align_mean_gap": alignment, "align_logistic": alignment, "align_lda": alignment, "align_inlp": abs(alignment),
        "monosemanticity": random.uniform(0.2, 0.9, count), "stability": stability,
    }  # fmt: skip
    labels = [KINDS[i % len(KINDS)] for i in cluster]
    numbers["label_auc"] = random.uniform(0.5, 1, count)
    numbers["name_score"] = random.uniform(0.6, 1, count)
    numbers |= {"name_score_low": numbers["name_score"] - 0.05, "name_chance": np.full(count, 0.5)}
    return {"name": words, "label": labels, "firings": random.integers(10, 900, count).tolist()} | {
        name: np.round(values, 6).tolist() for name, values in numbers.items()
    }


def planted_bridges(random: np.random.Generator, concepts: Files, count: int) -> Files:
    """Bridges in order of falling size. Three in four lead to one of the sixteen nearest concepts on the map."""
    from scipy.spatial import KDTree

    places = np.stack([concepts["x"], concepts["y"]], axis=1)
    image = random.integers(0, len(places), count)
    near = KDTree(places).query(places[image], k=min(17, len(places)))[1]
    close = near[np.arange(count), random.integers(1, near.shape[1], count)]
    text = np.where(random.uniform(size=count) < 0.75, close, random.integers(0, len(places), count))
    size = np.sort(random.pareto(2.5, count) * 1e-4)[::-1] * random.choice([1, 1, 1, -1], count)
    values = {
        "coactivation": abs(size) * 2, "cosine": np.clip(size * 500, -1, 1), "bridge": size,
        "covariance_bridge": size * 0.8,
        "correlation_bridge": np.clip(size * 300, -1, 1),
    }  # fmt: skip
    return {
        "image_concept": image.tolist(), "text_concept": text.tolist(),
        "pairs": random.integers(10, 500, count).tolist(),
    } | {name: np.round(column, 9).tolist() for name, column in values.items()}  # fmt: skip


def detail(
    random: np.random.Generator, concept: int, images: int, name: str, others: list[str], stability: float
) -> Files:
    """The details of one concept."""
    activation = np.round(np.sort(random.exponential(0.3, TOP))[::-1], 4).tolist()

    def top(count: int) -> list[Files]:
        items = random.choice(count, min(TOP, count), replace=False)
        return [{"item": int(item), "activation": value} for item, value in zip(items, activation, strict=False)]

    return {
        "images": top(images),
        "texts": top(images * CAPTIONS),
        "histogram": {
            "edges": np.linspace(0, activation[0], BINS + 1).tolist(),
            "image": random.poisson(60 / np.arange(1, BINS + 1)).tolist(),
            "text": random.poisson(60 / np.arange(1, BINS + 1)).tolist(),
        },
        "words": [{"word": word, "score": 1 / at} for at, word in enumerate(name.split(", "), 1)],
        "matches": [{"key": key, "concept": concept, "cosine": stability} for key in others],
        "levels": [
            {"level": level, "images": top(images)[:3], "texts": top(images * CAPTIONS)[:3]}
            for level in (0.75, 0.5, 0.25, 0.0)
        ],
        "partners": [],
        "together": {"images": {"concept": [0, 1], "correlation": [0.5, 0.25]}, "texts": EMPTY},
    }


def codes(random: np.random.Generator, concepts: int, k: int = 8) -> Files:
    """The concepts that reconstruct one item. Their shares and the share of the bias add up to 1."""
    share = np.round(0.9 * random.dirichlet(np.ones(k)), 6)
    return {
        "concept": random.choice(concepts, k, replace=False).tolist(),
        "activation": np.sort(random.exponential(0.3, k))[::-1].round(4).tolist(),
        "share": share.tolist(),
        "bias": round(1 - float(share.sum()), 6),
    }


def main() -> None:
    """Plant what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True)
    for name, value in Scale()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = vars(parser.parse_args())
    plant(arguments.pop("to"), Scale(**arguments))


if __name__ == "__main__":
    sys.exit(main())
