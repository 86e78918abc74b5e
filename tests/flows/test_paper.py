"""The paper's study from start to end, with tiny random models and a small folder of pairs in COCO's layout."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import CAPTIONS, build

from flows.cli import main
from storage import open_catalog
from storage.embeddings import read_attributes
from storage.runs import last_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
STUDY = Path(__file__).parents[2] / "studies" / "paper.toml"
IMAGES, CAPTIONS_EACH, WIDTH = 60, 5, 12
FAMILY_OF = {"clip": "clip", "siglip": "siglip", "siglip2": "siglip2", "aimv2": "aimv2"}


def coco(folder: Path, subset: str) -> None:
    """Write noisy pictures of one colour, each with five captions. The last picture is truncated."""
    draw = np.random.default_rng(0)
    (folder / subset).mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for number in range(1, IMAGES + 1):
        name = f"{number:012}.jpg"
        noise = draw.integers(0, 60, (40, 48, 3)) + draw.integers(0, 195, 3)
        Image.fromarray(noise.astype(np.uint8)).save(folder / subset / name)
        images.append({"id": number, "file_name": name, "width": 48, "height": 40})
        for turn in range(CAPTIONS_EACH):
            caption = f"{CAPTIONS[(number + turn) % len(CAPTIONS)]} {turn}"
            annotations.append({"id": 10 * number + turn, "image_id": number, "caption": caption})
    last = folder / subset / images[-1]["file_name"]
    last.write_bytes(last.read_bytes()[:300])
    document = {"images": images, "annotations": annotations}
    (folder / "annotations" / f"captions_{subset}.json").write_text(json.dumps(document))


def test_the_papers_study_runs_from_pairs_to_page(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = tomllib.loads(STUDY.read_text())
    coco(tmp_path / "coco", study["pairs"].get("subset", "val2017"))
    assert {model["spec"] for model in study["models"]} == set(FAMILY_OF)
    changes = [f"pairs.path={tmp_path / 'coco'}", "analyze.min_pairs=1"]
    # Diets (trainings on other shares of the data) are left out, since each SAE needs a new process. Diets are tested
    # in test_study.py, with one model.
    changes += ["diets.image_share=[]", "diets.halves=false", 'frontier.methods=["topk", "pca"]', "frontier.k=[2]"]
    for model in study["models"]:
        checkpoint = build(FAMILY_OF[model["spec"]], tmp_path / "models" / model["name"])
        changes.append(f"models.{model['name']}.spec=hf:local-dir:{checkpoint}")
    for sae in study["saes"]:
        seeds = [0, 1] if sae["name"] == "main" else [0]
        small = {"width": WIDTH, "k": 3, "epochs": 2, "batch_size": 32, "seeds": seeds}
        changes += [f"saes.{sae['name']}.{key}={value}" for key, value in small.items()]
    store = tmp_path / "store"
    arguments = [part for change in changes for part in ("--set", change)]
    assert main(["run", str(STUDY), "--store", str(store), *arguments]) == 0, capfd.readouterr().err
    run = last_run(store, study["name"])
    assert run is not None
    names = [model["name"] for model in study["models"]]
    failed = [key for entry in run.of("embed") for key in read_attributes(store, entry.dataset)["failed_rows"]]
    assert len(failed) == len(names)  # each model fails on the truncated picture
    with open_catalog(store, study["name"]) as con:
        counts = con.execute("SELECT model, count(DISTINCT seed) FROM saes GROUP BY model ORDER BY model").fetchall()
        assert counts == [(name, 2) for name in sorted(names)]
        assert con.execute("SELECT count(*) FROM images").fetchone() == (IMAGES - 1,)
        assert con.execute("SELECT count(*) FROM pairs").fetchone() == ((IMAGES - 1) * CAPTIONS_EACH,)
        rows = con.execute("SELECT model, count(*) FROM frontier GROUP BY model ORDER BY model").fetchall()
        assert rows == [(name, 4) for name in sorted(names)]  # both methods, each with its own encoder and with pursuit
        fired = con.execute("SELECT count(DISTINCT model || modality) FROM activations").fetchone()
        assert fired == (2 * len(names),)
    assert (store / "report" / study["name"] / "index.html").stat().st_size > 10_000
