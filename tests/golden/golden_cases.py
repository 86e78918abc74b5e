"""The tiny fixed input of every stage, and the outputs of the stages, made in this process without Prefect.

Each stage starts from inputs that no other stage of this project computed, as far as possible. For example,
tables are made from dictionaries that this file writes down, not from trained dictionaries. So a change of one stage
does not move the figures of other stages.
"""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from golden_figures import Figures, figures_of
from PIL import Image
from tiny_models import build

import sae
import tasks
from flows.config import Study, load_study
from flows.jobs.analyze import correspondences
from flows.jobs.job import STEPS, Given
from flows.stages import STAGES
from sae.model import Config
from storage.dataset import Dataset, address, materialize
from storage.listing import scan, write_ledger
from storage.pairs import read_failures
from storage.runs import Entry, State
from storage.sources.registry import open_source
from storage.sources.section import source_of
from tasks.children import Watch
from tasks.consensus import consensus
from tasks.model import demo_model, features
from tasks.stage import Runtime, Stage

IMAGES, DIM, CAPTIONS = 160, 12, ("wet grass", "a red square", "two dogs", "night", "a small boat at sea")
VECTORS = """
name = "golden"
[pairs]
source = "embeddings"
path = "vectors"
heldout = 0.25
[[models]]
name = "own"
spec = "embeddings:vectors"
"""
#: {name of a setting: its keys}. Width 96 gives dead concepts, so AuxK is used. It also gives more than 10 concepts per
#: code, so the sparse step is used. `restarted` is just long enough for one restart of dead concepts: after three
#: restarts, float32 noise decides which rows are drawn. Noise of 2e-7 in the rows moves no dictionary by more than
#: 1.1e-5 (1 - mean cosine).
TRAININGS = {
    "sparse": "width = 96\nepochs = 6\ndead_after_epochs = 0.1",
    "restarted": "width = 96\nepochs = 11",
    "topk": 'architecture = "topk"\nwidth = 96\nepochs = 6\ndead_after_epochs = 0.1',
    "dense": "width = 24\nepochs = 6",
    "matryoshka": 'architecture = "matryoshka"\nwidth = 96\nepochs = 6',
    "relu": 'architecture = "relu"\nwidth = 24\nepochs = 12\nlearning_rate = 5e-3',
    "jumprelu": 'architecture = "jumprelu"\nwidth = 24\nepochs = 12\nlearning_rate = 5e-3',
}
SHARED = "k = 4\nbatch_size = 32\nseeds = [0]\n"


def section(name: str) -> str:
    """The section of a study file for one of `TRAININGS`."""
    rate = "" if "learning_rate" in TRAININGS[name] else "learning_rate = 2e-3\n"
    return f'[[saes]]\nname = "{name}"\n{TRAININGS[name]}\n{rate}{SHARED}'


TRAINED = "".join(map(section, TRAININGS))
IMPORTED = '[[saes]]\nname = "imported"\ncheckpoint = "checkpoint"\n'
WRITTEN_DOWN = """
[[saes]]
name = "main"
width = 16
k = 3
seeds = [0, 1]
[frontier]
methods = ["topk", "pca", "kmeans"]
k = [2]
[analyze]
split = "all"
min_pairs = 2
"""
#: Two models of the same items. Only what compares models is recorded of this study.
TWO_MODELS = """
[[models]]
name = "other"
spec = "embeddings:vectors"
[[saes]]
name = "main"
width = 16
k = 3
seeds = [0]
[analyze]
split = "all"
"""
PICTURES = """
name = "pictures"
[pairs]
source = "folder"
path = "pictures"
[[models]]
name = "tiny"
spec = "hf:local-dir:clip"
[[saes]]
name = "none"
width = 4
k = 1
"""


#: A folder of four pictures of which two have equal bytes.
REPEATED = """
name = "repeated"
[pairs]
source = "folder"
path = "repeated"
duplicates = "drop"
[[models]]
name = "tiny"
spec = "hf:local-dir:clip"
[[saes]]
name = "none"
width = 4
k = 1
"""


def stages() -> dict[str, Stage]:
    """Every cached task of the project, under the name of its function."""
    modules = [importlib.import_module(f"tasks.{entry.name}") for entry in pkgutil.iter_modules(tasks.__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Stage)]
    return {stage.body.__name__: stage for stage in found}


@contextmanager
def in_this_process() -> Iterator[None]:
    """Use one thread and no child processes: training and measuring run in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("tasks.fit", "tasks.frontier", "tasks.consensus"):
            patch.setattr(f"{module}.in_process", lambda body, job, label: body(job, Watch(os.getppid())))
        # Items on their principal axes: the last digits of a processor move the places of a UMAP.
        patch.setattr("report.explorer.places.FEWEST", 10**6)
        patch.setattr("report.page.write_files", lambda folder, drawn: [])  # figure files are slow and not compared
        yield
    torch.set_num_threads(threads)


class Made:
    """Results of the stages: for each stage, the figures of each dataset under the dataset's place in the study."""

    def __init__(self, store: Path) -> None:
        self.store, self.figures = store, dict[str, Figures]()

    def make(self, stage: Stage, place: str, **inputs: Any) -> Dataset:
        """Make a dataset and record its figures."""
        dataset = stage.make(Runtime(store=self.store, device="cpu", embed_batch_size=16, progress=False), **inputs)
        found = {"dataset": {"height": dataset.rows}, **figures_of(self.store / dataset.path)}
        placed = {f"{place}: {name}": value for name, value in found.items()}
        self.figures.setdefault(stage.body.__name__, {}).update(placed)
        return dataset

    def study(self, study: Study, upto: str, state: State | None = None) -> State:
        """Make the datasets of a study, up to the last step of a stage. Datasets that `state` holds are not made."""
        given = Given(study, State(), None, self.store)
        scanned = scan(self.store, open_source(source_of(study.pairs), self.store), study.pairs.shard_size)
        given.state.add(*(Entry(kind="scan", shard=n, dataset=listing) for n, listing in enumerate(scanned.listings)))
        for stage in list(STAGES)[: list(STAGES).index(upto) + 1]:
            for step in STEPS[stage]:
                for job in step(given):
                    known = state.get(job.key) if state is not None else None
                    dataset = known.dataset if known else self.make(job.stage, str(job.key), **job.arguments())
                    given.state.add(job.entry(dataset) if known is None else known)
            if stage == "acquire":
                failed = read_failures(self.store, [e.dataset for e in given.state.of("acquire")])
                given.state.add(Entry(kind="ledger", dataset=write_ledger(self.store, scanned.dropped, failed)))
        return given.state


def vectors(folder: Path) -> None:
    """Write vectors of 160 images with two captions each: sparse sums of 20 directions, with a modality gap."""
    rng = np.random.default_rng(7)
    atoms, gap = rng.standard_normal((20, DIM)), rng.standard_normal(DIM)
    codes = rng.random((IMAGES, 20)) * (rng.random((IMAGES, 20)) < 0.15)
    captions = codes[np.repeat(np.arange(IMAGES), 2)] * (rng.random((2 * IMAGES, 20)) < 0.7)
    folder.mkdir()
    for name, rows, sign in (("image", codes, 1), ("text", captions, -1)):
        noise = 0.1 * rng.standard_normal((len(rows), DIM))
        np.save(folder / f"{name}.npy", (rows @ atoms + 0.3 * sign * gap + noise).astype(np.float32))
    owner = np.repeat(np.arange(IMAGES), 2)
    words = [f"caption {j} of {i}" for j, i in enumerate(owner)]
    keys = [f"k{i:05}" for i in owner]
    pl.DataFrame({"image_row": owner, "key": keys, "caption": words}).write_parquet(folder / "metadata.parquet")


def written_down(seed: int, width: int = 16) -> sae.SAE:
    """An SAE that is not trained: numpy draws its numbers. SAEs of two seeds share half of their atoms."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    atoms = rng.standard_normal((width, DIM))
    atoms[::2] = shared.standard_normal((width, DIM))[::2] + 0.2 * rng.standard_normal((width, DIM))[::2]
    atoms = torch.from_numpy((atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32))
    settings = sae.Settings(width=width, k=3, epochs=20, batch_size=256, learning_rate=1e-3, noise=0)
    config = Config(**dict(settings), dim=DIM, seed=seed, rows_seen=480)
    zeros = torch.zeros(width)
    return sae.SAE(atoms, zeros, atoms.clone(), torch.full((DIM,), 0.01), torch.tensor(0.35), config)


def told(made: Made, study: Study) -> State:
    """Store the SAEs of `written_down` with training curves of one point. Returns a state with their entries.

    The SAEs of the second model are those of the seeds from 10 on.
    """
    state = State()
    for first, model in enumerate(study.models):
        for seed in study.saes[0].seeds:

            def body(out: Path, drawn: int = seed + 10 * first) -> int:
                written_down(drawn).save(out)
                point = {"step": 1, "epoch": 1.0, "loss": 0.5, "r2": 0.5, "l0": 3.0, "dead_fraction": 0.0}
                pl.DataFrame([{**point, "rows_per_second": 1.0}]).write_parquet(out / "training.parquet")
                return 480

            dataset = materialize(made.store, address("saes", "golden", {"seed": seed + 10 * first}), body)
            state.add(Entry(kind="train", model=model.name, sae="main", seed=seed, dataset=dataset))
    return state


def compared(made: Made, study: Study) -> None:
    """Record what compares the models of a study, and nothing else of it."""
    unrecorded = Made(made.store)
    state = unrecorded.study(study, "export", told(made, study))
    for job in correspondences(Given(study, state, None, made.store)):
        made.make(job.stage, str(job.key), **job.arguments())


def pictures(folder: Path) -> None:
    """Write 24 pictures of coloured squares, each with a caption file."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for i in range(24):
        square = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(square).resize((40, 48), Image.Resampling.NEAREST).save(out, "png")
        (folder / f"{i:02}.png").write_bytes(out.getvalue())
        (folder / f"{i:02}.txt").write_text(f"{CAPTIONS[i % 5]} {i // 5}")


def fixed_clip(folder: Path) -> None:
    """Write a tiny CLIP. Its weights are drawn by numpy, so they do not depend on torch's random generator."""
    from safetensors.numpy import load_file, save_file

    build("clip", folder)
    (weights,) = folder.glob("*.safetensors")
    rng = np.random.default_rng(5)
    drawn = {
        name: np.asarray(0.3 * rng.standard_normal(value.shape), value.dtype) if value.dtype.kind == "f" else value
        for name, value in sorted(load_file(weights).items())
    }
    save_file(drawn, weights, metadata={"format": "pt"})


def trainings(folder: Path, settings: str = TRAINED) -> Made:
    """Train SAEs on the golden vectors, with a store in a folder."""
    made = Made(folder / "store")
    made.store.mkdir()
    vectors(folder / "vectors")
    (folder / "trained.toml").write_text(VECTORS + settings)
    with in_this_process():
        made.study(load_study(folder / "trained.toml"), "train")
    return made


def make_all(folder: Path) -> dict[str, Figures]:
    """Make every stage's output in a folder. Returns {stage: figures}."""
    written_down(5, width=24).save(folder / "checkpoint")
    made = trainings(folder, TRAINED + IMPORTED)
    (folder / "told.toml").write_text(VECTORS + WRITTEN_DOWN)
    (folder / "two.toml").write_text(VECTORS + TWO_MODELS)
    pictures(folder / "pictures")
    fixed_clip(folder / "clip")
    (folder / "pictures.toml").write_text(PICTURES)
    (folder / "repeated").mkdir()
    for name, picture in (("0", "00"), ("1", "01"), ("2", "00"), ("3", "03")):
        for suffix in ("png", "txt"):
            shutil.copyfile(folder / "pictures" / f"{picture}.{suffix}", folder / "repeated" / f"{name}.{suffix}")
    (folder / "repeated.toml").write_text(REPEATED)
    with in_this_process():
        study = load_study(folder / "told.toml")
        state = made.study(study, "report", told(made, study))
        compared(made, load_study(folder / "two.toml"))
        seeds, pairs, rows = ([e.dataset for e in state.of(kind)] for kind in ("train", "acquire", "embed"))
        made.make(consensus, "consensus", saes=seeds, pairs=pairs, embeddings=rows, heldout=0.25)
        state = made.study(load_study(folder / "pictures.toml"), "embed")
        made.study(load_study(folder / "repeated.toml"), "acquire")
        pairs = [e.dataset for e in state.of("acquire")]
        towers = made.make(features, "features", pairs=pairs, heldout=0.2)
        for variant in ("emoji-clip", "emoji-siglip"):
            made.make(demo_model, variant, features=towers, variant=variant, seed=0)
    return made.figures
