"""On Ray a shard is embedded by all models in one task, and the datasets are those of the runner "threads"."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ray_support import begin
from tiny_models import build

from storage.dataset import manifest_of
from storage.runs import last_run


@pytest.fixture
def two_models(pictures: Path, tmp_path: Path) -> Path:
    """The study of pictures with a second model."""
    study = tmp_path / "pictures.toml"
    other = f'[[models]]\nname = "other"\nspec = "hf:local-dir:{build("siglip", tmp_path / "siglip")}"\n[[saes]]'
    text = pictures.read_text().replace('path = "data"', f'path = "{pictures.parent / "data"}"')
    study.write_text(text.replace("[[saes]]", other, 1))
    return study


def test_a_task_embeds_a_shard_with_all_models(two_models: Path, tmp_path: Path) -> None:
    found = {}
    for runner in ("ray", "threads"):
        store = tmp_path / runner
        store.mkdir()
        acquire = [
            sys.executable,
            "-m",
            "flows.cli",
            "run",
            str(two_models),
            "--store",
            str(store),
            "--only",
            "acquire",
        ]
        subprocess.run(acquire, check=True, capture_output=True, cwd=Path(__file__).parents[2])
        process = begin(two_models, store, f"runtime.runner={runner}", only="embed")
        _, output = process.communicate(timeout=300)
        assert process.returncode == 0, output
        passes = re.findall(r"shard (\d): 200 images, 200 captions, 800 rows forward .* 2 models\)", output)
        assert sorted(passes) == ["0", "1", "2", "3"], output
        run = last_run(store, "pictures")
        assert run is not None
        found[runner] = {entry.key: entry.dataset.digest for entry in run.of("embed")}
        assert all(manifest_of(store, entry.dataset)["seconds"] > 0 for entry in run.of("embed"))
    assert len(found["ray"]) == 8
    assert found["ray"] == found["threads"]
