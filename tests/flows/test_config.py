"""The study file: what is wrong is said with file, key and what is allowed, and paths do not depend on the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config import load_study
from storage.errors import BadInput

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.mark.parametrize("name", ["demo", "planted"])
def test_the_studies_that_come_with_it_are_valid(name: str) -> None:
    assert load_study(STUDIES / f"{name}.toml").name == name


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("k = 3", "k = -3", r"small.toml: saes.0.k: .*greater than or equal to 1 \(got -3\)"),
        ("k = 3", "k = 30", "k is 30, more than the width 24"),
        ("epochs = 4", "epoch = 4", r"saes.0.epoch: unknown key; allowed here: architecture, .*epochs"),
        ("[analyze]", "[analyse]", r"analyse: unknown key; allowed here: analyze, diets, models, name"),
        ("heldout = 0.25", "heldout = 1.5", r"pairs.heldout: .*less than 1"),
        ("shard_size = 1500", "shards = 1", r"pairs.shards: unknown key; allowed here: duplicates, heldout, .*path"),
        ('name = "small"', 'name = "Small Study"', r"name: bad name 'Small Study'"),
        ('name = "own"', 'name = "../own"', r"models.0.name: bad name"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "names a seed twice"),
        ('source = "embeddings"', 'source = "laion"', "'npm-emoji', 'embeddings'"),
        ("embeddings:vectors", "open_clip:ViT-B-32/x", "go with source"),
        ("embeddings:vectors", "magic:x", "must be demo:NAME, open_clip:NAME/PRETRAINED"),
        ("[analyze]", "[[[", "not TOML"),
        (
            "width = 24",
            "checkpoint = 'x'\nwidth = 24",
            "saes.0.width: unknown key; allowed here: architecture, checkpoint",
        ),
        ("[[saes]]", "[[saes]]\nname = 'b'\ncheckpoint = 'x'\nseeds = [1]\n[[saes]]", "its only seed is 0"),
        ("[analyze]", "[frontier]\nmethods = ['pca']\nk = [2, 2]\n[analyze]", "frontier: k names one thing twice"),
        ("[analyze]", "[frontier]\nmethods = ['svd']\nk = [2]\n[analyze]", r"frontier.methods.0.*'relu', 'topk'"),
        ("[analyze]", "[frontier]\nmethods = ['pca']\nk = [30]\n[analyze]", "k is 30, more than the width 24"),
        ("[analyze]", "[frontier]\nmethod = ['pca']\n[analyze]", "frontier.method: unknown key; allowed here: k, meth"),
    ],
)
def test_bad_studies_are_told_what_is_wrong(study_file: Path, old: str, new: str, says: str) -> None:
    text = study_file.read_text()
    assert old in text
    study_file.write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=says):
        load_study(study_file)


def test_a_missing_study_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such study file"):
        load_study(tmp_path / "none.toml")


def test_paths_are_relative_to_the_study_file(
    study_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir("/")
    study = load_study(study_file)
    assert study.pairs.path == str(tmp_path / "vectors")
    assert study.models[0].spec == f"embeddings:{tmp_path / 'vectors'}"


def test_set_changes_a_value_by_name_or_number(study_file: Path) -> None:
    study = load_study(study_file, ["saes.main.k=5", "saes.0.width=32", "analyze.split=all", "runtime.device=cpu"])
    assert (study.saes[0].k, study.saes[0].width) == (5, 32)
    assert (study.analyze.split, study.runtime.device) == ("all", "cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("saes.main", "must be key=value"),
        ("saes.other.k=1", "there is no 'other'; there are main"),
        ("saes=1", None),
        ("name.x=1", "is a value"),
        ("saes.main.knob=1", "unknown key"),
    ],
)
def test_bad_set_is_bad_input(study_file: Path, change: str, says: str | None) -> None:
    with pytest.raises(BadInput, match=says):
        load_study(study_file, [change])


def test_runtime_names_seeds_and_retrain_are_not_part_of_a_setting(study_file: Path) -> None:
    setting = load_study(study_file).saes[0].setting()
    assert not {"name", "seeds", "retrain"} & setting.keys()
    assert {"batch_size", "learning_rate", "decoder_bias", "auxk", "image_share"} <= setting.keys()
