"""Items have places on a map: equal ones every time, both modalities together, in large studies by interpolation."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy import sparse

from report.explorer.concepts import SAEKey
from report.explorer.item_maps import ItemMap, packed, packed_firings, write_item_maps
from report.explorer.places import (
    FITTED,
    NEIGHBOURS,
    OWN,
    Placed,
    both_modalities,
    interpolated,
    place,
    place_blocks,
    place_codes,
)

TOPICS, DIM = 4, 16
ROOT = Path(__file__).resolve().parents[2]


def embeddings(count: int, gap: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images, captions, topic of each pair): unit rows around a few topics, the modalities far apart."""
    random = np.random.default_rng(1)
    topic = np.arange(count) % TOPICS
    centres, shift = random.standard_normal((TOPICS, DIM)), gap * random.standard_normal(DIM)
    sides = [centres[topic] + sign * shift + 0.1 * random.standard_normal((count, DIM)) for sign in (1, -1)]
    image, text = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in sides)
    return image, text, topic


def place_embeddings(image: np.ndarray, text: np.ndarray, most: int = FITTED) -> Placed:
    """Places of images and captions whose embeddings are one block each."""
    captions = np.arange(len(image), len(image) + len(text))
    return place_blocks(lambda: [(np.arange(len(image)), image), (captions, text)], len(image), len(text), most)


def spread(places: np.ndarray, topic: np.ndarray) -> float:
    """Mean distance of items to the centre of their topic, divided by that to the centre of all."""
    inner = np.mean([np.linalg.norm(places[topic == t] - places[topic == t].mean(0), axis=1).mean() for t in range(4)])
    return float(inner / np.linalg.norm(places - places.mean(0), axis=1).mean())


def test_both_modalities_of_a_topic_share_a_place_despite_the_gap() -> None:
    image, text, topic = embeddings(120)
    placed = place_embeddings(image, text)
    assert (placed.layout, placed.fitted, placed.places.shape) == ("umap", 240, (240, 2))
    assert np.abs(placed.places).max() == pytest.approx(1)
    assert spread(placed.places, np.tile(topic, 2)) < 0.3
    plain = place(np.concatenate([image, text]).astype(np.float32))
    sides = np.repeat([0, 1], 120)
    apart = [np.linalg.norm(p.places[sides == 0].mean(0) - p.places[sides == 1].mean(0)) for p in (placed, plain)]
    assert apart[0] < apart[1] / 3  # without the neighbours of the other modality, the gap splits the map


def test_equal_items_have_equal_places() -> None:
    image, text, _ = embeddings(60)
    assert np.array_equal(place_embeddings(image, text).places, place_embeddings(image, text).places)


def test_neighbours_are_the_item_itself_then_both_modalities() -> None:
    image, text, _ = embeddings(40)
    rows = np.concatenate([image, text]).astype(np.float32)
    found, far = both_modalities(rows, 40)
    assert found.shape == far.shape == (80, NEIGHBOURS)
    assert found[:, 0].tolist() == list(range(80))
    assert (far[:, 0] == 0).all()
    assert (np.diff(far, axis=1) >= 0).all()
    assert all(len(set(row)) == NEIGHBOURS for row in found.tolist())
    own = (found[:, 1:] < 40) == (np.arange(80) < 40)[:, None]
    assert (own.sum(1) == OWN).all()
    # The nearest image of image 3, by hand.
    cosine = image[3] @ image.T
    cosine[3] = -2
    nearest = next(item for item in found[3, 1:].tolist() if item < 40)
    assert nearest == int(cosine.argmax())


def test_a_large_study_is_fitted_on_a_sample_and_the_rest_interpolated() -> None:
    image, text, topic = embeddings(200)
    placed = place_embeddings(image, text, most=100)
    assert (placed.layout, placed.fitted) == ("umap-sample", 100)
    assert spread(placed.places, np.tile(topic, 2)) < 0.3
    assert np.isfinite(placed.places).all()


@pytest.mark.parametrize("most", [100, 400])
def test_places_do_not_depend_on_the_blocks(most: int) -> None:
    image, text, _ = embeddings(200)
    whole = place_embeddings(image, text, most)
    numbers = np.random.default_rng(0).permutation(200)  # a later shard may hold earlier numbers
    parts = [part for start in range(0, 200, 30) for part in (numbers[start : start + 30], numbers[:0])]

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in parts:
            yield part, image[part]
            yield 200 + part, text[part]

    placed = place_blocks(blocks, 200, 200, most)
    assert placed[1:] == whole[1:]
    assert np.allclose(placed.places, whole.places, atol=1e-3)


def test_a_map_of_many_items_never_holds_all_their_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40,000 rows of 64 numbers, 10 MB of float32, it holds the fitted ones and a block at a time."""
    monkeypatch.setattr("report.explorer.places._umap", lambda rows, images=0: rows[:, :2].astype(np.float64))

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 40_000, 500):
            rows = np.random.default_rng(start).standard_normal((500, 64)).astype(np.float32)
            yield np.arange(start, start + 500), rows

    tracemalloc.start()
    try:
        placed = place_blocks(blocks, 20_000, 20_000, most=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.isfinite(placed.places).all()
    assert peak < 40_000 * 64 * 4 / 2


def test_interpolation_weighs_by_the_inverse_distance() -> None:
    anchors = np.array([[0.0, 0], [3, 0], [0, 3], [9, 9], [9, 9], [50, 50]])
    similarity = np.array([[1.0, 0, 0, 0, 0, -1]])  # the first anchor is the item itself
    assert interpolated(similarity, anchors) == pytest.approx(np.zeros((1, 2)), abs=1e-4)
    even = np.array([[0.5, 0.5, 0.5, 0.5, 0.5, -1]])
    assert interpolated(even, anchors) == pytest.approx(np.array([[21 / 5, 21 / 5]]))


def test_items_are_placed_by_their_codes_even_without_any() -> None:
    topic = np.arange(100) % 4
    codes = sparse.csr_matrix((np.ones(99), (np.arange(99), topic[:99])), (100, 4))  # item 99 has no code
    placed = place_codes(codes)
    assert placed.layout == "umap"
    assert np.isfinite(placed.places).all()
    assert spread(placed.places[:99], topic[:99]) < 0.3


def test_few_items_lie_on_their_principal_axes() -> None:
    placed = place(np.diag([3.0, 2, 1]).astype(np.float32))
    assert (placed.layout, placed.fitted) == ("pca", 3)


def numbers(data: bytes, kind: str) -> list[Any]:
    return np.frombuffer(data, kind).tolist()


def test_the_binary_files_hold_what_the_contract_says(tmp_path: Path) -> None:
    assert numbers(packed(np.array([[-1, 1], [0.5, 0]])), "<i2") == [-32767, 16384, 32767, 0]
    data = packed_firings(np.array([0, 0, 2]), np.array([5, 6, 7]), np.array([0.5, 1, 2]), 0)
    starts = numbers(data[: 4 * 65], "<u4")
    assert starts[:4] == [0, 2, 2, 3]
    assert starts[-1] == 3
    assert numbers(data[260:272], "<u4") == [5, 6, 7]
    assert numbers(data[272:], "<f4") == [0.5, 1, 2]


def test_firings_name_items_by_their_number_on_the_map(tmp_path: Path) -> None:
    con = duckdb.connect()
    con.execute("CREATE TABLE images AS SELECT * FROM (VALUES (7, 0.0), (9, 2.0 ** -40)) AS t(image_id, split_u)")
    con.execute("CREATE TABLE pairs AS SELECT * FROM (VALUES (7, 9), (8, 7)) AS t(pair_id, image_id)")
    con.execute(
        """CREATE TABLE activations AS SELECT 'm' AS model, 's' AS sae, 0 AS seed, * FROM (VALUES
        ('text', 7, 70, 0.25), ('image', 9, 70, 0.5), ('text', 8, 0, 1.0)) 
        AS t(modality, item_id, concept_id, activation)"""
    )
    ids = np.array([7, 9, 7, 8])
    each = ItemMap("m", None, None, ids, 2, np.zeros((4, 2)), "pca", 4)
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as site:
        assert write_item_maps(site, con, [each], [SAEKey("m", "s", 0)])
        files = {name: site.read(name) for name in site.namelist()}
    assert numbers(files["data/items/map/m/items.bin"][:32], "<f8") == [7, 9, 7, 8]
    # split_u 2^-40 is group 1; caption 7 belongs to image 9, so it is in group 1 too.
    assert numbers(files["data/items/map/m/items.bin"][32:], "u1") == [0, 1, 1, 0]
    second = files["data/runs/m/s/0/codes/firings-1.bin"]  # concepts 64 to 127
    # Concept 70 fires on image 9 and on caption 7, items 1 and 2 of the map.
    assert numbers(second[4 * 65 : 4 * 67], "<u4") == [1, 2]
    assert numbers(second[4 * 67 :], "<f4") == [0.5, 0.25]
    assert numbers(files["data/runs/m/s/0/codes/firings-0.bin"][260:264], "<u4") == [3]
    assert json.loads(json.dumps(each.described()))["file"] == "data/items/map/m/embeddings.bin"


@pytest.mark.slow
def test_a_second_process_compiles_nothing_of_umap_again() -> None:
    place(embeddings(100)[0].astype(np.float32))
    program = (
        "import numpy as np, umap.umap_\n"
        "from report.explorer.places import place\n"
        "place(np.eye(70, dtype=np.float32))\n"
        "found = umap.umap_.smooth_knn_dist.stats\n"
        "print(len(found.cache_hits), len(found.cache_misses))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["1", "0"]
