"""The key `consensus` of a study, and a study that makes a consensus SAE, shows it and publishes it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests_support import TEXT, write_study

from flows.config import load_study
from flows.consensus import ConsensusSAE
from flows.fresh import nothing_to_do
from flows.narrow import Narrow
from flows.plan import plan
from flows.study import run_study
from sae import SAE
from sae.hub import from_hub
from storage import open_catalog
from storage.errors import BadInput
from storage.runs import shown_settings
from tasks.publish import publish_study

KEY = "consensus = true\n"


def written(folder: Path, text: str) -> Path:
    study = folder / "small.toml"
    study.write_text(text)
    return study


def test_the_key_adds_one_sae_per_setting_of_several_seeds(tmp_path: Path) -> None:
    alone = TEXT.replace("[analyze]", '[[saes]]\nname = "alone"\nwidth = 24\nk = 3\nseeds = [7]\n[analyze]')
    loaded = load_study(written(tmp_path, KEY + alone))
    main, joined, other = loaded.settings()
    assert joined == ConsensusSAE("main-consensus", "main", [0, 1], 24, 3)
    assert joined.seeds == (0,)
    assert [each.name for each in (main, other)] == ["main", "alone"]
    assert loaded.families() == [[main], [joined], [other]]  # its concepts are matched with those of no other SAE
    assert shown_settings(loaded.shown()) == ["main", "main-consensus", "alone"]


def test_a_study_without_the_key_has_no_such_sae_and_states_no_key(tmp_path: Path) -> None:
    loaded = load_study(written(tmp_path, TEXT))
    assert [each.name for each in loaded.settings()] == ["main"]
    assert "consensus" not in loaded.shown()
    assert shown_settings(loaded.shown()) == ["main"]


def test_seeds_to_join_are_needed_and_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="consensus: joins the seeds of an SAE, and no SAE of the study is trained with"):
        load_study(written(tmp_path, KEY + TEXT.replace("seeds = [0, 1]", "seeds = [4]")))
    taken = TEXT.replace("[analyze]", '[[saes]]\nname = "main-consensus"\nwidth = 24\nk = 3\n[analyze]')
    with pytest.raises(BadInput, match="saes names one thing twice"):
        load_study(written(tmp_path, KEY + taken))


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_study_makes_counts_shows_and_publishes_the_consensus_sae(tmp_path: Path) -> None:
    write_study(tmp_path)
    study, store = load_study(written(tmp_path, KEY + TEXT)), tmp_path / "store"
    store.mkdir()
    foreseen = {line.kind: line.make for line in plan(study, store).lines}
    run = run_study(study, store, progress=False).run
    assert run.is_complete
    assert nothing_to_do(study, store, run) is not None
    assert (foreseen["train"], foreseen["measures"]) == (3, 3) == (len(run.of("train")), len(run.of("measures")))
    con = open_catalog(store)
    (path, width, frozen) = con.execute("SELECT path, width, frozen FROM saes WHERE sae = 'main-consensus'").fetchone()
    net = SAE.load(store / path)
    assert (net.config.consensus_of, net.config.width, frozen) == ((0, 1), width, None)
    # Every concept of the table is the normalised sum of the concepts of the seeds that the table names.
    rows = con.execute("FROM consensus_members ORDER BY concept_id, of_seed").fetchall()
    of = {e.seed: SAE.load(store / e.dataset.path).dictionary for e in run.of("train", sae="main")}
    sums = np.zeros((width, net.config.dim))
    for _, sae, _, concept, of_sae, seed, member, cosine in rows:
        assert (sae, of_sae) == ("main-consensus", "main")
        assert cosine == pytest.approx(float(net.dictionary[concept] @ of[seed][member]), abs=1e-6)
        sums[concept] += of[seed][member].numpy()
    np.testing.assert_allclose(sums / np.linalg.norm(sums, axis=1, keepdims=True), net.dictionary, atol=1e-6)
    assert con.execute("SELECT count(*), min(seeds), max(seeds) FROM consensus").fetchone() == (width, 2, 2)
    assert con.execute("SELECT count(*) FROM concepts WHERE sae = 'main-consensus'").fetchone() == (width,)
    # Stability compares seeds, and a consensus SAE has none: no row, and no claim about it.
    assert con.execute("SELECT count(*) FROM stability('own', 'main-consensus')").fetchone() == (0,)
    query = "SELECT count(*), count(*) FILTER (claim ILIKE '%stable%') FROM findings WHERE sae = 'main-consensus'"
    claims = con.execute(query).fetchone()
    assert claims[0] > 5
    assert claims[1] == 0
    page = (store / "report" / "small" / "index.html").read_text()
    assert "Concepts that most seeds share" in page
    web = tmp_path / "web"
    web.mkdir()
    publish_study(store, "small", tmp_path / "published", web)
    loaded = from_hub(tmp_path / "published", sae="own/main-consensus/0")
    assert loaded.difference(net) is None
    card = (tmp_path / "published" / "saes" / "own" / "main-consensus" / "0" / "README.md").read_text()
    assert "The consensus of seeds 0, 1:" in card
    with pytest.raises(BadInput, match=r"--seed 1: no such seed in study small. Available: 0."):
        Narrow(sae="main-consensus", seed=1).check(study)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_consensus_sae_alone_is_made_from_the_seeds_or_said_to_wait_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_study(tmp_path, images=300)
    study, store = load_study(written(tmp_path, KEY + TEXT)), tmp_path / "store"
    store.mkdir()
    for stage in ("acquire", "embed", "train"):
        run = run_study(study, store, only=stage, progress=False).run
    joined, seed = (run.of("train", sae=sae)[0].dataset for sae in ("main-consensus", "main"))
    shutil.rmtree(store / joined.path)
    log = logging.getLogger("bridgescope")
    log.addHandler(caplog.handler)  # once Prefect has set up its logging, records no longer reach the root logger
    alone = {"only": "train", "narrow": Narrow(sae="main-consensus"), "progress": False}
    again = run_study(study, store, **alone).run
    assert again.of("train", sae="main-consensus")[0].dataset == joined
    assert len(again.of("train", sae="main")) == 2
    assert "no job was run" not in caplog.text
    shutil.rmtree(store / joined.path)
    shutil.rmtree(store / seed.path)
    run_study(study, store, **alone)
    log.removeHandler(caplog.handler)
    assert (
        "--only train --sae main-consensus: no job was run: datasets that train own main-consensus seed 0 reads are "
        "missing: run --only train without --sae main-consensus, or the whole study"
    ) in caplog.text
