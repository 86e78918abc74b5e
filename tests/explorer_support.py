"""A small study for tests of the explorer: pictures, unusual captions and a tiny random CLIP."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_models import CAPTIONS, build

IMAGES = 120
AWKWARD = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "\"double\" 'single' `tick` & ampersand \\ backslash",
    "עברית من اليمين إلى اليسار \u202eback to front\u202c",
    "long " + "x" * 10_000,
)
STUDY = """
name = "pictures"
[pairs]
source = "folder"
path = "pictures"
heldout = 0.25
licence = "CC0-1.0"
[[models]]
name = "tiny"
spec = "hf:local-dir:clip"
[[saes]]
name = "main"
width = {width}
k = 3
epochs = 6
batch_size = 32
learning_rate = 5e-3
seeds = [0, 1]
[analyze]
split = "all"
min_pairs = 1
[runtime]
device = "cpu"
"""


def write_pictured_study(folder: Path, width: int = 16, images: int = IMAGES) -> Path:
    """Write a study file, pictures with two captions each, and a model. The first captions are unusual."""
    draw = np.random.default_rng(0)
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    rows = [("file_name", "caption")]
    for number in range(images):
        name = f"p{number:03}.png"
        noise = draw.integers(0, 60, (40, 56, 3)) + draw.integers(0, 195, 3)
        Image.fromarray(noise.astype(np.uint8)).save(pictures / name)
        first = AWKWARD[number] if number < len(AWKWARD) else f"{CAPTIONS[number % len(CAPTIONS)]} {number}"
        rows += [(name, first), (name, CAPTIONS[(number + 1) % len(CAPTIONS)])]
    with open(pictures / "captions.csv", "w", newline="") as out:
        csv.writer(out).writerows(rows)
    build("clip", folder / "clip")
    study = folder / "pictures.toml"
    study.write_text(STUDY.format(width=width))
    return study
