"""A published study is complete, loads with equal codes, may leave out items, and never replaces other files."""

from __future__ import annotations

import http.server
import io
import json
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import explorer.front
from flows.cli import main
from sae import SAE
from sae.hub import from_hub
from sae.model import SAEFormatError
from storage import open_catalog
from storage.rows import select
from storage.runs import last_run
from tasks.publish import publish_study


@pytest.fixture(scope="module")
def site(pictured: tuple[Path, Path], front: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("published") / "site"
    assert publish_study(pictured[1], "pictures", target, front) == str(target)
    return target


def test_a_published_sae_gives_the_codes_of_the_store(site: Path, pictured: tuple[Path, Path]) -> None:
    store = pictured[1]
    run = last_run(store, "pictures")
    assert run is not None
    pairs, embeddings = ([entry.dataset for entry in run.of(stage)] for stage in ("acquire", "embed"))
    rows = select(store, pairs, embeddings, heldout=0.0)
    for seed in (0, 1):
        codes = from_hub(site, sae=f"tiny/main/{seed}").encode(rows.text, "text").numpy()
        kept = SAE.load(store / run.of("train", seed=seed)[0].dataset.path)
        assert np.array_equal(codes, kept.encode(rows.text, "text").numpy())
        with open_catalog(store, "pictures") as con:
            stored = con.execute(
                "SELECT item_id, concept_id, activation FROM activations WHERE modality = 'text' AND seed = ?", [seed]
            ).fetchnumpy()
        assert np.count_nonzero(codes) == len(stored["item_id"])
        row = np.searchsorted(rows.pair_id, stored["item_id"])
        assert np.array_equal(codes[row, stored["concept_id"]], stored["activation"])


def test_several_saes_are_named(site: Path) -> None:
    with pytest.raises(SAEFormatError, match=r"it holds several SAEs: name one. Available: tiny/main/0, tiny/main/1."):
        from_hub(site)
    with pytest.raises(SAEFormatError, match=r"no SAE named '\.\./x'. Available: tiny/main/0"):
        from_hub(site, sae="../x")


def test_the_table_of_items_has_what_other_viewers_open(site: Path, pictured: tuple[Path, Path]) -> None:
    table = pl.read_parquet(site / "items" / "tiny.parquet")
    with open_catalog(pictured[1], "pictures") as con:
        images, captions = con.execute("SELECT (SELECT count(*) FROM images), count(*) FROM pairs").fetchall()[0]
        strongest = con.sql(
            "SELECT modality, item_id, max(activation) AS activation, count(*) AS codes FROM activations "
            "WHERE sae = 'main' AND seed = 0 GROUP BY ALL"
        ).pl()
    assert dict(table["modality"].value_counts().rows()) == {"text": captions, "image": images}
    shown = table.filter(pl.col("image").is_not_null())
    assert set(shown["modality"]) == {"image"}
    for image in shown["image"]:
        assert Image.open(io.BytesIO(image["bytes"])).format == "WEBP"
        assert (site / image["path"]).read_bytes() == image["bytes"]
    joined = table.join(strongest, on=["modality", "item_id"], how="left")
    assert joined["activations"].list.first().equals(joined["activation"], null_equal=True)
    assert (joined["concept_ids"].list.len() == joined["codes"].clip(upper_bound=5)).all()
    assert (joined["concepts"].list.first() == joined["top_concept"]).all()
    # Principal components: about the mean of each modality, uncorrelated, and the first one is the longest.
    x, y = (table[f"projection_{axis}"].to_numpy().astype(float) for axis in "xy")
    for modality in ("image", "text"):
        own = (table["modality"] == modality).to_numpy()
        assert abs(x[own].mean()) < 1e-6
        assert abs(y[own].mean()) < 1e-6
    assert abs(x @ y) < 1e-5 * (x @ x)
    assert x @ x > y @ y > 0


def test_the_pages_list_the_published_files_with_their_sizes(site: Path) -> None:
    files = json.loads((site / "data" / "manifest.json").read_text())["files"]
    there = [path for name in ("saes", "statistics", "items") for path in (site / name).rglob("*") if path.is_file()]
    assert {(file["path"], file["bytes"]) for file in files} == {
        (path.relative_to(site).as_posix(), path.stat().st_size) for path in there
    }
    assert {"statistics/concepts.parquet", "items/tiny.parquet"} <= {file["path"] for file in files}


def test_the_statistics_are_the_tables_and_hold_no_items(site: Path, pictured: tuple[Path, Path]) -> None:
    run = last_run(pictured[1], "pictures")
    assert run is not None
    tables = pictured[1] / run.of("analyze")[0].dataset.path
    there = {path.stem for path in (site / "statistics").iterdir()}
    assert there == {path.stem for path in tables.glob("*.parquet")}
    assert {"concepts", "matches", "bridges", "nulls", "findings"} <= there
    for path in (site / "statistics").iterdir():
        assert path.read_bytes() == (tables / path.name).read_bytes()
        assert "caption" not in pl.read_parquet_schema(path)


def test_the_card_says_what_the_tables_say(site: Path, pictured: tuple[Path, Path]) -> None:
    card = (site / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: bridgescope\n")
    with open_catalog(pictured[1], "pictures") as con:
        for r2, l0 in con.execute("SELECT r2_image, l0_image FROM saes").fetchall():
            assert f"{r2:.3f}".replace("-", "−") in card
            assert f"{l0:.2f}" in card
        (stability, floor) = con.execute("SELECT stability, floor_matched FROM stability('tiny', 'main')").fetchone()
    assert f"| {stability:.3f} |" in card
    assert f"| {floor:.3f} |" in card
    for part in ("## Data", "CC0-1.0", "## Models and preprocessing", "## Settings", "## Findings", "## Limits"):
        assert part in card
    assert str(pictured[1].parent) not in card  # the card names no local path
    assert 'sae="tiny/main/0"' in (site / "saes" / "tiny" / "main" / "0" / "README.md").read_text()


def test_no_file_names_a_path_of_this_machine(site: Path, pictured: tuple[Path, Path]) -> None:
    here = str(pictured[1].parent).encode()
    assert [path for path in site.rglob("*") if path.is_file() and here in path.read_bytes()] == []


def test_the_site_opens_from_a_static_host(site: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(site))

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        manifest = json.loads(urllib.request.urlopen(f"{address}data/manifest.json").read())
        assert (manifest["live"], manifest["items"]) == (False, True)
        assert b"<title>explorer</title>" in urllib.request.urlopen(address).read()
        assert urllib.request.urlopen(f"{address}thumbs/0.webp").headers["content-type"] == "image/webp"
        server.shutdown()


def test_without_items_nothing_of_a_caption_or_picture_is_left(
    pictured: tuple[Path, Path], front: Path, tmp_path: Path
) -> None:
    publish_study(pictured[1], "pictures", tmp_path / "bare", front, items=False)
    whole = b"".join(path.read_bytes() for path in (tmp_path / "bare").rglob("*") if path.is_file())
    with open_catalog(pictured[1], "pictures") as con:
        captions = [row[0] for row in con.execute("SELECT DISTINCT caption FROM pairs").fetchall()]
    assert len(captions) > 100
    assert [caption for caption in captions if caption.encode() in whole] == []
    assert not (tmp_path / "bare" / "thumbs").exists()
    assert not (tmp_path / "bare" / "items").exists()
    assert not (tmp_path / "bare" / "study.html").exists()
    assert json.loads((tmp_path / "bare" / "data" / "manifest.json").read_text())["page"] is None
    assert b"WEBP" not in whole
    assert "No image and no caption is part of this publication" in (tmp_path / "bare" / "README.md").read_text()


def test_what_is_not_ours_is_left_alone(
    pictured: tuple[Path, Path], front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    study, store = pictured
    monkeypatch.setattr(explorer.front.built_site, "__defaults__", (front,))
    full = tmp_path / "full"
    full.mkdir()
    (full / "letters.txt").write_text("dear")
    assert main(["publish", str(study), "--store", str(store), "--to", str(full)]) == 2
    assert "was not published by bridgescope: name a new folder" in capsys.readouterr().err
    assert [path.name for path in full.iterdir()] == ["letters.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert main(["publish", str(study), "--store", str(store), "--to", "hf:nobody"]) == 2
    assert "--to hf:nobody: must be a folder, or hf:OWNER/NAME" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["publish", str(study), "--store", str(store), "--to", str(tmp_path / "file")]) == 2


def test_a_published_folder_is_replaced_whole(
    pictured: tuple[Path, Path], front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, store = pictured
    monkeypatch.setattr(explorer.front.built_site, "__defaults__", (front,))
    to = tmp_path / "deep" / "site"
    command = ["publish", str(study), "--store", str(store), "--to", str(to)]
    assert main(command) == 0
    (to / "left.txt").write_text("from an older version")
    (to.with_name("site.partial")).mkdir()  # left by a killed process
    assert main([*command, "--no-items"]) == 0
    assert not (to / "left.txt").exists()
    assert not (to / "data" / "items").exists()
    assert [path.name for path in to.parent.iterdir()] == ["site"]


def test_a_release_that_fails_changes_nothing(
    pictured: tuple[Path, Path], front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "site"
    publish_study(pictured[1], "pictures", to, front)
    before = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.publish.write_statistics", full)
    with pytest.raises(OSError, match="No space left"):
        publish_study(pictured[1], "pictures", to, front)
    assert {path: path.read_bytes() for path in to.rglob("*") if path.is_file()} == before


def test_the_hub_gets_the_same_folder(
    pictured: tuple[Path, Path], front: Path, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    # Tests do not reach the hub: the upload is captured and checked, and then loaded as if it came from the hub.
    import huggingface_hub

    sent: dict[str, Any] = {}

    class Api:
        def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
            sent["repo"] = (name, private, exist_ok)
            return f"hub:{name}"

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
            sent["files"] = {
                path.relative_to(folder_path).as_posix(): path.read_bytes()
                for path in Path(folder_path).rglob("*")
                if path.is_file()
            }

    def downloaded(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        sent["asked"] = (name, revision, allow_patterns)
        return str(site)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    monkeypatch.setattr(explorer.front.built_site, "__defaults__", (front,))
    study, store = pictured
    assert main(["publish", str(study), "--store", str(store), "--to", "hf:owner/name"]) == 0
    assert capsys.readouterr().out == "hub:owner/name\n"
    assert sent["repo"] == ("owner/name", True, True)  # True: the repository is private
    there = {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert sent["files"] == there
    assert from_hub("owner/name", sae="tiny/main/1").config.seed == 1
    wanted = ["saes/tiny/main/1/sae.safetensors", "saes/tiny/main/1/config.json"]
    assert sent["asked"] == ("owner/name", None, wanted)


def test_a_front_end_that_was_not_built_is_reported(pictured: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    study, store = pictured
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer.front.built_site, "__defaults__", (tmp_path,))
        for command in (["explore", str(study), "--no-browser"], ["publish", str(study), "--to", str(tmp_path / "x")]):
            assert main([*command, "--store", str(store)]) == 2
            assert "was not built yet: make front-end" in capsys.readouterr().err
