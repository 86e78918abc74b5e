"""A study completes if all its SAEs are imported: one in the format of SAELens 4 and 5, and one dead SAE."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flows.config import load_study
from flows.study import run_study
from storage import open_catalog
from storage.errors import BadInput

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
TEXT = """
name = "lens"
[pairs]
source = "embeddings"
path = "vectors"
heldout = 0.25
[[models]]
name = "own"
spec = "embeddings:vectors"
[[saes]]
name = "topk"
checkpoint = "topk"
[[saes]]
name = "dead"
checkpoint = "dead"
"""
DIM, WIDTH, IMAGES = 12, 24, 30


def write_lens(folder: Path, entries: dict[str, object], threshold: float | None) -> None:
    """Write a SAELens folder: an SAE of unit atoms, with one threshold for all concepts."""
    atoms = torch.nn.functional.normalize(torch.randn(WIDTH, DIM, generator=torch.Generator().manual_seed(0)), dim=1)
    tensors = {"W_enc": atoms.T.contiguous(), "b_enc": torch.zeros(WIDTH), "W_dec": atoms, "b_dec": torch.zeros(DIM)}
    if threshold is not None:
        tensors["threshold"] = torch.full((WIDTH,), threshold)
    folder.mkdir()
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": DIM, "d_sae": WIDTH, **entries}))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "vectors").mkdir()
    for name, gap in (("image", 0.3), ("text", -0.3)):
        rows = rng.standard_normal((IMAGES, DIM)).astype(np.float32) + np.float32(gap)
        np.save(tmp_path / "vectors" / f"{name}.npy", rows)
    write_lens(tmp_path / "topk", {"architecture": "topk", "activation_fn_kwargs": {"k": 4}}, None)
    write_lens(tmp_path / "dead", {"architecture": "jumprelu"}, 50.0)  # threshold 50: no unit row reaches it
    (tmp_path / "lens.toml").write_text(TEXT)
    (tmp_path / "store").mkdir()
    return tmp_path / "lens.toml"


def test_a_study_of_imported_saes_alone_ends_well_and_says_what_it_lacks(study: Path) -> None:
    store = study.parent / "store"
    run_study(load_study(study), store, progress=False)
    con = open_catalog(store)
    saes = con.execute("SELECT sae, k, l0, dead_fraction FROM saes ORDER BY sae").fetchall()
    assert saes[0] == ("dead", 0, 0.0, 1.0)
    assert saes[1][:2] == ("topk", 4)
    assert 3.5 < saes[1][2] <= 4
    page = (store / "report" / "lens" / "index.html").read_text()
    assert "No curves are drawn: no SAE was trained by this study." in page
    assert f"0 concepts counted, {WIDTH} left out" in page
    assert 'id="figure-training"' not in page


def test_an_sae_that_cannot_be_read_whole_leaves_nothing_in_the_store(study: Path) -> None:
    store = study.parent / "store"
    cfg = study.parent / "topk" / "cfg.json"
    cfg.write_text(json.dumps({"architecture": "topk", "activation_fn_str": "topk", "d_in": DIM, "d_sae": WIDTH}))
    with pytest.raises(BadInput, match=r"sae topk: .*topk/cfg\.json: holds no k.*saes\.k"):
        run_study(load_study(study), store, progress=False)
    assert not list(store.glob("*/*/dataset.json"))  # the checkpoint was refused before any dataset was made
