"""The explorer's data files are correct, safe and deterministic, and may leave out images and captions."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from report.explorer import ItemMap, concept_map, unpack, write_explorer
from report.explorer.concepts import SAEKey, _members
from report.explorer.layout import in_square, method_of
from report.explorer.release import handed_out
from report.explorer.shares import Dictionary, shares, shares_of_items
from report.gallery import FIGURES_INDEX
from report.pictures import webp
from report.queries import UNIMODAL
from storage.rows import Rows
from storage.site import SITE

Make = Callable[..., Any]
AWKWARD = "<script>alert(1)</script> & \"quotes\" 'single'"
WIDTH, DIM = 16, 8
KEY = "one/main/0"


def dictionary_of(key: str) -> Dictionary:
    random = np.random.default_rng(sum(key.encode()))
    rows = random.standard_normal((WIDTH, DIM))
    means = {"image": rows[0] / 9 - rows[2] / 9, "text": rows[1] / 9 - rows[2] / 9}
    bias = {"image": rows[0] / 9, "text": rows[1] / 9}
    return Dictionary(rows / np.linalg.norm(rows, axis=1, keepdims=True), bias, rows[2] / 9, means)


def rows_of(model: str) -> Rows:
    random = np.random.default_rng(sum(model.encode()))
    image, text = random.standard_normal((40, DIM)), random.standard_normal((80, DIM))
    return Rows(image, text, np.arange(40), np.arange(80), np.arange(80) // 2, np.zeros(40))


def write(folder: Path, con: Any, config: dict[str, Any]) -> Path:
    """Write the figures of a catalog's page, and the archive of the explorer's data. Returns the archive."""
    figures = folder / "page" / "figures"
    figures.mkdir(parents=True)
    described = [
        {"id": name, "title": name, "caption": AWKWARD, "sql": "SELECT 1"} for name in ("models", "modality", "lost")
    ]
    (folder / "page" / FIGURES_INDEX).write_text(json.dumps(described))
    (folder / "page" / "index.html").write_text('<a href="explorer.html#/map">map</a>')
    for name in ("models", "modality"):
        (figures / f"{name}.svg").write_text("<svg/>")
        (figures / f"{name}.png").write_bytes(b"png")
    layouts = {
        f"{model['name']}/{sae['name']}/{seed}": np.zeros((WIDTH, 2))
        for model in config["models"]
        for sae in config["saes"]
        for seed in sae["seeds"]
    }
    out = folder / "out"
    out.mkdir()
    ids = [[row[0] for row in con.execute(f"SELECT {name} FROM {table} ORDER BY 1").fetchall()]
           for name, table in (("image_id", "images"), ("pair_id", "pairs"))]  # fmt: skip
    map_of = ItemMap("one", None, None, np.concatenate(ids), len(ids[0]), np.zeros((120, 2)), "umap", 120)
    shown = write_explorer(out, con, config, folder / "page", layouts, dictionary_of, rows_of, [map_of])
    assert shown == WIDTH * len(layouts)
    return out / SITE


def read(site: Path) -> dict[str, Any]:
    """Every file of an archive by name. JSON files are parsed."""
    with zipfile.ZipFile(site) as files:
        members: dict[str, Any] = {name: files.read(name) for name in files.namelist()}
    return {name: json.loads(data) if name.endswith(".json") else data for name, data in members.items()}


@pytest.fixture(scope="module")
def site(catalog: Make, config: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("site"), catalog(whole=True), config())


@pytest.fixture(scope="module")
def files(site: Path) -> dict[str, Any]:
    return read(site)


def test_the_manifest_names_the_saes_of_the_study_file_and_no_diets(files: dict[str, Any]) -> None:
    manifest = files["data/manifest.json"]
    assert [run["key"] for run in manifest["runs"]] == [f"{m}/main/{s}" for m in ("one", "two") for s in (0, 1)]
    run = manifest["runs"][0]
    assert (run["concepts"], run["dim"], run["k"], run["layout"]) == (WIDTH, 8, 2, "pca")
    assert run["stability"] == pytest.approx(0.6)  # of 16 concepts, 8 have the cosine .8 and 8 have .4
    assert 0.2 <= run["floor_random"] <= 0.22
    assert run["bridges"] == 8
    assert manifest["pairs"] == {"images": 40, "captions": 80, "licence": None}
    assert {row["sae"] for row in files["data/compare.json"]["settings"]} == {"main", "main-half-a", "main-half-b"}
    views = {view["name"] for view in files["data/catalog.json"]["views"]}
    assert views == set()  # the small catalog has tables in place of views
    assert (manifest["live"], manifest["items"], manifest["schema"]) == (False, True, 1)


def test_the_map_of_items_and_the_firings_agree_with_the_catalog(files: dict[str, Any], catalog: Make) -> None:
    manifest = files["data/manifest.json"]
    (described,) = manifest["maps"]
    assert (described["items"], described["images"], manifest["firings"]) == (120, 40, True)
    assert len(files[described["file"]]) == 4 * 120
    ids = np.frombuffer(files[described["ids"]][: 8 * 120], "<f8").astype(int)
    firings = files[f"data/runs/{KEY}/codes/firings-0.bin"]
    starts = np.frombuffer(firings[: 4 * 65], "<u4")
    items = np.frombuffer(firings[4 * 65 : 4 * (65 + starts[-1])], "<u4")
    found = {(int(i < 40), int(ids[i])) for i in items[starts[3] : starts[4]]}
    rows = catalog(whole=True).execute(
        "SELECT modality, item_id FROM activations WHERE model = 'one' AND sae = 'main' AND seed = 0 AND concept_id = 3"
    )
    assert found == {(int(modality == "image"), item) for modality, item in rows.fetchall()}
    assert found


def test_the_best_label_of_a_concept_is_a_column(files: dict[str, Any]) -> None:
    concepts = files[f"data/runs/{KEY}/concepts.json"]
    assert (concepts["label"][0], concepts["label_auc"][0]) == (f"{AWKWARD} 0", 0.9)


def test_macros_are_listed_with_their_documentation(files: dict[str, Any]) -> None:
    shift = next(macro for macro in files["data/catalog.json"]["macros"] if macro["name"] == "concept_shift")
    assert shift["call"].startswith("concept_shift(m, s, seed, modality, a, b")
    assert shift["purpose"].startswith("the concepts that two sets of items use differently")
    assert "energy_difference" in shift["columns"]


def test_concepts_are_columns_of_one_length_in_their_order(files: dict[str, Any], catalog: Make) -> None:
    concepts = files[f"data/runs/{KEY}/concepts.json"]
    assert {len(column) for column in concepts.values()} == {WIDTH}
    con = catalog(whole=True)
    where = "WHERE model = 'one' AND sae = 'main' AND seed = 0 ORDER BY concept_id"
    energy = [row[0] for row in con.execute(f"SELECT energy FROM concepts {where}").fetchall()]
    assert concepts["energy"] == pytest.approx(energy, rel=1e-5)
    assert concepts["stability"][:8] == pytest.approx([0.8] * 8)
    assert concepts["align_mean_gap"] == pytest.approx([0.9 - i / 8 for i in range(WIDTH)], abs=1e-6)


def test_bridges_come_by_size_whatever_their_sign(files: dict[str, Any]) -> None:
    bridges = files[f"data/runs/{KEY}/bridges.json"]
    assert bridges["bridge"] == pytest.approx([2.0, *(0.05 * i for i in range(7, 0, -1))])
    assert bridges["image_concept"][:2] == [0, 14]
    assert bridges["correlation_bridge"][-1] is None  # the correlation is undefined


def test_a_concept_shows_its_strongest_items_its_bars_and_its_matches(files: dict[str, Any]) -> None:
    concept = files[f"data/runs/{KEY}/concept/0.json"]["0"]
    assert concept["images"][0]["activation"] == 3.0
    assert len(concept["images"]) == len(concept["texts"]) == 24
    activations = [item["activation"] for item in concept["images"]]
    assert activations == sorted(activations, reverse=True)
    assert len(concept["histogram"]["edges"]) == 21
    assert concept["histogram"]["edges"][-1] == 3.0
    # Images 0, 4, 8 ... 36 are held out. On the five images that are multiples of 8 the activation of concept 0
    # is below 2, on the other five it is 3. On all 20 captions of held-out images the activation is 3. So
    # the last bin holds 5 images and 20 captions.
    assert concept["histogram"]["image"][-1] == 5
    assert sum(concept["histogram"]["text"]) == concept["histogram"]["text"][-1] == 20
    assert concept["matches"] == [{"key": "one/main/1", "concept": 0, "cosine": 0.8}]
    (label,) = concept["labels"]
    assert (label["modality"], label["name"], label["label"]) == ("image", "group", f"{AWKWARD} 0")
    assert (label["auc"], label["null_q975"], label["above_null"]) == (0.9, 0.6, True)


def test_a_concept_of_a_consensus_sae_names_the_concepts_that_it_joins(catalog: Make) -> None:
    con = catalog(saes=("main", "main-consensus"), models=("one",))
    assert _members(con, SAEKey("one", "main-consensus", 0)) == {}  # a run without a consensus SAE has no such view
    con.execute(
        """CREATE TABLE consensus_members AS SELECT * FROM (VALUES
            ('one', 'main-consensus', 0, 5, 'main', 1, 9, 0.75), ('one', 'main-consensus', 0, 5, 'main', 0, 3, 0.5),
            ('one', 'other-consensus', 0, 5, 'other', 0, 4, 0.25)
        ) AS t(model, sae, seed, concept_id, of_sae, of_seed, of_concept, cosine)"""
    )
    joined = [
        {"key": "one/main/0", "concept": 3, "cosine": 0.5},
        {"key": "one/main/1", "concept": 9, "cosine": 0.75},
    ]
    assert _members(con, SAEKey("one", "main-consensus", 0)) == {5: joined}
    assert _members(con, SAEKey("one", "main", 0)) == {}


def test_shares_of_every_item_add_up_to_one(files: dict[str, Any]) -> None:
    items, bridges_seen = files["data/items/index.json"], 0
    for kind in ("images", "texts"):
        for i, block in items[kind].items():
            codes = files[f"data/runs/{KEY}/codes/{block}.json"][kind].get(i)
            if codes is not None:
                assert sum(codes["share"]) + codes["bias"] == pytest.approx(1, abs=1e-3)
                assert codes["activation"] == sorted(codes["activation"], reverse=True)
                bridges_seen += 1
    assert bridges_seen > 100


def test_captions_are_kept_letter_by_letter(files: dict[str, Any]) -> None:
    assert files["data/items/0.json"]["texts"]["0"] == {"caption": AWKWARD, "image": 0, "split": "heldout"}
    search = files["data/items/search.json"]
    assert search["caption"][search["id"].index(2)] == AWKWARD
    image = files["data/items/0.json"]["images"]["0"]
    assert image == {
        "key": "key0", "width": 200, "height": 120, "split": "heldout", "captions": [0, 1], "thumb": "thumbs/0.webp",
    }  # fmt: skip


def test_thumbnails_are_small_and_carry_no_metadata(files: dict[str, Any]) -> None:
    with Image.open(io.BytesIO(files["thumbs/0.webp"])) as picture:
        assert (picture.format, picture.size) == ("WEBP", (160, 96))
    assert files["data/items/0.json"]["images"]["39"]["thumb"] is None  # the bytes of image 39 are not a picture
    assert "thumbs/39.webp" not in files
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the EXIF orientation: a quarter turn
    exif[0x010F] = "somebody's camera"
    Image.new("RGB", (400, 200), "red").save(turned, "JPEG", exif=exif)
    thumbnail = webp(turned.getvalue(), 160, 70)
    assert thumbnail is not None
    assert b"camera" not in thumbnail
    with Image.open(io.BytesIO(thumbnail)) as picture:
        assert picture.size == (80, 160)
        assert not picture.getexif()


def test_findings_and_the_figures_that_are_there(files: dict[str, Any]) -> None:
    compare = files["data/compare.json"]
    assert [figure["id"] for figure in compare["figures"]] == ["models", "modality"]
    assert compare["figures"][0]["svg"] == "figures/models.svg"
    assert files["figures/models.svg"] == b"<svg/>"
    assert {row["model"] for row in compare["findings"]} == {"one", "two"}
    assert {row["sae"] for row in compare["findings"]} == {"main"}
    assert compare["frozen"] == []


def test_equal_catalogs_give_equal_bytes(site: Path, catalog: Make, config: Make, tmp_path: Path) -> None:
    assert write(tmp_path, catalog(whole=True), config()).read_bytes() == site.read_bytes()


def test_a_study_without_pictures_shows_captions_alone(catalog: Make, config: Make, tmp_path: Path) -> None:
    con = catalog(models=("one",), pictures=False)
    con.execute("DROP TABLE image_bytes")
    members = read(write(tmp_path, con, config(models=("one",))))
    assert not [name for name in members if name.startswith("thumbs/")]
    assert members["data/items/0.json"]["images"]["0"]["thumb"] is None
    assert members["data/items/0.json"]["texts"]["1"]["caption"] == "caption 1"


def test_unpacked_files_are_the_archives(site: Path, files: dict[str, Any], tmp_path: Path) -> None:
    unpack(site, tmp_path)
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there == set(files)
    assert (tmp_path / "thumbs" / "0.webp").read_bytes() == files["thumbs/0.webp"]
    stored = files["data/manifest.json"]
    # Definitions are added when the manifest is published, so the bytes of the dataset do not depend on them.
    assert "definitions" not in stored
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest == handed_out(stored)
    assert manifest["definitions"]["unimodal"] == UNIMODAL


def test_without_items_no_caption_and_no_picture_is_left(site: Path, files: dict[str, Any], tmp_path: Path) -> None:
    unpack(site, tmp_path, items=False)
    text = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "alert(1)" in json.dumps(files["data/items/0.json"])
    for caption in files["data/items/search.json"]["caption"]:
        if caption != AWKWARD:  # AWKWARD is also the description of the figures
            assert caption not in text
    assert not (tmp_path / "thumbs").exists()
    assert not (tmp_path / "data" / "items").exists()
    assert not list(tmp_path.rglob("codes"))
    assert sorted(path.name for path in (tmp_path / "figures").glob("*.svg")) == ["modality.svg", "models.svg"]
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert (manifest["items"], manifest["live"]) == (False, False)
    concept = json.loads((tmp_path / "data" / "runs" / KEY / "concept" / "0.json").read_text())["0"]
    assert (concept["images"], concept["texts"]) == ([], [])
    assert concept["matches"] == files[f"data/runs/{KEY}/concept/0.json"]["0"]["matches"]


def test_shares_by_hand() -> None:
    # The atoms D_i are (1, 0) and (0, 1), the bias b is (0, 1) and the codes z are (2, 1). So x_hat = (2, 2), with
    # |x_hat|^2 = 8. The share of a concept is z_i D_i . x_hat / |x_hat|^2: 2 * 2 / 8 = .5 and 1 * 2 / 8 = .25. The
    # share of the bias is (0, 1) . (2, 2) / 8 = .25.
    concept_shares, rest = shares(np.eye(2), np.array([0.0, 1.0]), np.array([2.0, 1.0]))
    assert (concept_shares.tolist(), rest) == ([0.5, 0.25], 0.25)
    # A concept that points away from x_hat has a negative share. With the atoms (1, 0) and (-1, 0) and the codes
    # (3, 1), x_hat is (2, 0).
    away, none = shares(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros(2), np.array([3.0, 1.0]))
    assert (away.tolist(), none) == ([1.5, -0.5], 0.0)
    assert shares(np.empty((0, 2)), np.zeros(2), np.empty(0)) == (pytest.approx([]), 0.0)
    many, rests = shares_of_items(
        np.eye(2), np.array([0.0, 1.0]), np.array([0, 2, 3]), np.array([0, 1, 1]), np.array([2.0, 1.0, 1.0])
    )
    # The second item has x_hat = (0, 2). The share of its concept is 1 * 2 / 4 = .5, the share of the bias 2 / 4 = .5.
    assert (many.tolist(), rests.tolist()) == ([0.5, 0.25, 0.5], [0.25, 0.5])


@given(
    arrays(np.float64, (5, 3), elements=st.floats(-2, 2)),
    arrays(np.float64, 3, elements=st.floats(-2, 2)),
    arrays(np.float64, 5, elements=st.floats(0, 3)),
)
def test_shares_add_up_to_one_wherever_there_is_a_reconstruction(concepts: Any, bias: Any, codes: Any) -> None:
    concept_shares, rest = shares(concepts, bias, codes)
    whole = codes @ concepts + bias
    if whole @ whole > 1e-6:
        assert concept_shares.sum() + rest == pytest.approx(1, abs=1e-6)


def test_small_dictionaries_lie_along_their_principal_axes() -> None:
    # The three directions lie on a line. The first coordinate of the map runs along this line, and the second is 0. The
    # sign of an axis is chosen such that the coordinate farthest from 0 is positive.
    places = concept_map(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [4.0, 0.0, 0.0]]))
    assert places[:, 0].tolist() == pytest.approx([-1.0, -0.5, 1.0])
    assert places[:, 1].tolist() == pytest.approx([0.0, 0.0, 0.0])
    assert concept_map(np.ones((1, 4))).tolist() == [[0.0, 0.0]]
    assert (method_of(63), method_of(64)) == ("pca", "umap")


@pytest.mark.slow
def test_umap_keeps_groups_together_and_gives_the_same_places_again() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(16)[:2]
    rows = np.concatenate([centre + 0.05 * random.standard_normal((40, 16)) for centre in centres])
    places = concept_map(rows)
    assert np.array_equal(places, concept_map(rows))
    assert np.abs(places).max() == pytest.approx(1)
    group = np.repeat([0, 1], 40)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()  # the nearest neighbour of each concept is in its group


def test_the_square_keeps_the_aspect() -> None:
    assert in_square(np.array([[0.0, 0.0], [4.0, 2.0]])).tolist() == [[-1.0, -0.5], [1.0, 0.5]]
    assert in_square(np.ones((3, 2))).tolist() == [[0.0, 0.0]] * 3
