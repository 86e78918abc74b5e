"""Labels of concepts: each belongs to one dataset of an SAE, and processes that write them wait for each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.runs import Entry, Run
from storage.user_labels import path_of, read_labels, set_label

KEY = "m/main/0"
EACH = 40  # labels that each process of a test gives
GIVE = """
import sys
from pathlib import Path
from storage.runs import Run
from storage.user_labels import set_label
store, run, first, count = Path(sys.argv[1]), Run.model_validate_json(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for concept in range(first, first + count):
    set_label(store, run, "m/main/0", concept, "dogs", 1000)
"""


def run_of(sae: str) -> Run:
    """A run of the study "s" whose SAE m/main/0 is the dataset saes/<sae>."""
    dataset = Dataset(path=f"saes/{sae}", recipe=sae, digest=sae, rows=1)
    entry = Entry(kind="train", model="m", sae="main", seed=0, dataset=dataset)
    return Run(study="s", config={}, entries=[entry], started="2026-01-01T00:00:00", versions={})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path_of(tmp_path, "s").parent.mkdir(parents=True)
    return tmp_path


def test_a_label_of_one_variant_leaves_that_of_another_in_place(store: Path) -> None:
    base, variant = run_of("base"), run_of("variant")
    set_label(store, base, KEY, 3, "dogs", 8)
    set_label(store, variant, KEY, 3, "snow", 8)
    assert [one["label"] for one in read_labels(store, base)] == ["dogs"]
    set_label(store, variant, KEY, 3, "ice", 8)
    assert [one["label"] for one in read_labels(store, variant)] == ["ice"]
    assert set_label(store, variant, KEY, 3, "", 8) == []
    assert [one["label"] for one in read_labels(store, base)] == ["dogs"]


def test_processes_that_label_one_study_keep_each_others_labels(store: Path) -> None:
    command = [sys.executable, "-c", GIVE, str(store), run_of("base").model_dump_json()]
    processes = [
        subprocess.Popen([*command, str(first), str(EACH)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for first in (0, EACH)
    ]
    for process in processes:  # both have imported what they need, so that they write at the same time
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    stored = json.loads(path_of(store, "s").read_text())["labels"]
    assert sorted(one["concept"] for one in stored) == list(range(2 * EACH))
