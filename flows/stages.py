"""What each stage has to do: lists of jobs made from the study and the datasets so far. `run` and `status` share them.

A job is a cached task with its arguments. Nothing here runs anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flows.config import ImportedSAE, SAESetting, Study
from flows.pairs import HOW, MAX_PIXELS, located, rules_of, source_of
from storage.dataset import Dataset
from storage.errors import BadInput
from storage.runs import Run
from storage.vectors import fingerprint
from tasks.acquire import fetch
from tasks.analyze import analyze, entry
from tasks.checkpoint import import_sae
from tasks.embed import adopt_vectors, embed, model_identity
from tasks.explore import explore, layout
from tasks.export import export
from tasks.frontier import frontier
from tasks.model import demo_model, features
from tasks.report import report
from tasks.stage import Stage
from tasks.train import sae

log = logging.getLogger("bridgescope")

STAGES = ("acquire", "model", "embed", "train", "export", "analyze", "report")
DEMO_SEED = 0  # of the demo models' projections


class Key(NamedTuple):
    """What a dataset is in a study."""

    stage: str
    model: str | None = None
    sae: str | None = None
    seed: int | None = None
    shard: int | None = None

    def __str__(self) -> str:
        parts = [self.stage, self.model, self.sae]
        parts += [f"seed {self.seed}" if self.seed is not None else None]
        parts += [f"shard {self.shard}" if self.shard is not None else None]
        return " ".join(part for part in parts if part)


class Job(NamedTuple):
    """One cached task to run, or to look up. `inputs` is None while something it is made from is missing."""

    key: Key
    stage: Stage
    inputs: dict[str, Any] | None


State = dict[Key, Dataset]


def of(state: State, stage: str, **wanted: Any) -> dict[Key, Dataset]:
    """The datasets of a stage so far, narrowed by model, sae, seed or shard."""
    return {
        key: dataset
        for key, dataset in state.items()
        if key.stage == stage and all(getattr(key, name) == value for name, value in wanted.items())
    }


def acquire_jobs(study: Study, state: State) -> list[Job]:
    """A fetch for every listing that the scan gave out."""
    source, rules = source_of(study.pairs), rules_of(study.pairs)
    return [
        Job(Key("acquire", shard=k.shard), fetch, {"listing": d, "source": source, "rules": rules})
        for k, d in of(state, "scan").items()
    ]


def model_jobs(study: Study, state: State, last: Run | None) -> list[Job]:
    """The demo models that the study names. Pinned: pairs that came later do not change a model that was made."""
    jobs: list[Job] = []
    pairs = list(of(state, "acquire").values())
    for model in study.models:
        kind, _, variant = model.spec.partition(":")
        if kind != "demo":
            continue
        used = _pinned(last, model.name, variant, study) or pairs
        inputs = {"pairs": used, "heldout": study.pairs.heldout} if used else None
        jobs.append(Job(Key("features", model.name), features, inputs))
        towers = state.get(Key("features", model.name))
        inputs = {"features": towers, "variant": variant, "seed": DEMO_SEED} if towers else None
        jobs.append(Job(Key("model", model.name), demo_model, inputs))
    return jobs


def _pinned(last: Run | None, name: str, variant: str, study: Study) -> list[Dataset] | None:
    """The pairs that this demo model was made from in the last run of the study."""
    if last is None or not last.of("model", model=name):
        return None
    specs = {model["name"]: model["spec"] for model in last.config["models"]}
    same = specs.get(name) == f"demo:{variant}" and last.config["pairs"]["heldout"] == study.pairs.heldout
    return list(last.of("features", model=name)[0].inputs) if same else None


def embed_jobs(study: Study, state: State, store: Path) -> list[Job]:
    """Every model on every shard of pairs."""
    jobs = []
    # Below the default `acquire` has refused what is larger.
    decoded = {"max_pixels": max(study.pairs.max_pixels, MAX_PIXELS)}
    for model in study.models:
        kind, _, rest = model.spec.partition(":")
        given = {"dtype": model.dtype, **decoded}
        made = state.get(Key("model", model.name))
        for key, pairs in of(state, "acquire").items():
            at = Key("embed", model.name, shard=key.shard)
            if kind == "embeddings":
                stamp = fingerprint(Path(rest), store / "sources" / "fingerprints.json")
                jobs.append(Job(at, adopt_vectors, {"pairs": pairs, "model": stamp, "path": rest}))
            elif kind == "demo":
                spec = f"open_clip:local-dir:{store / made.path}" if made else ""
                inputs = {"pairs": pairs, "model": made, "spec": spec, **given} if made else None
                jobs.append(Job(at, embed, inputs))
            else:
                identity, spec = model_identity(model.spec, store)
                jobs.append(Job(at, embed, {"pairs": pairs, "model": identity, "spec": spec, **given}))
    return jobs


def train_jobs(study: Study, state: State, last: Run | None, store: Path) -> list[Job]:
    """Every seed of every setting on every model."""
    jobs = []
    for model in study.models:
        shards = of(state, "embed", model=model.name)
        whole = bool(shards) and len(shards) == len(of(state, "acquire"))
        for setting in study.settings():
            for seed in setting.seeds:
                key = Key("train", model.name, setting.name, seed)
                pairs, embeddings = resolve_training_shards(study, state, last, key) if whole else ([], [])
                inputs = {
                    "pairs": pairs,
                    "embeddings": embeddings,
                    **(_imported(setting, store) if isinstance(setting, ImportedSAE) else _trained(setting, seed)),
                    "heldout": study.pairs.heldout,
                }
                jobs.append(Job(key, sae if isinstance(setting, SAESetting) else import_sae, inputs if whole else None))
    return jobs


def _trained(setting: SAESetting, seed: int) -> dict[str, Any]:
    return {"setting": setting.setting(), "seed": seed}


def _imported(setting: ImportedSAE, store: Path) -> dict[str, Any]:
    """An SAE from elsewhere is known by its bytes, wherever it lies."""
    path = Path(setting.checkpoint)
    if not path.exists():
        raise BadInput(f"sae {setting.name}: checkpoint {path}: no such file or folder")
    stamp = fingerprint(path, store / "sources" / "fingerprints.json")
    return {"checkpoint": stamp, "architecture": setting.architecture, "k": setting.k, "path": str(path)}


def resolve_training_shards(
    study: Study, state: State, last: Run | None, key: Key
) -> tuple[list[Dataset], list[Dataset]]:
    """The shards that an SAE is trained on: all of them, or those of the last run while the data grew too little.

    The one place where history enters. The result is stored in the run, as the inputs of the SAE's entry.
    """
    shards = of(state, "embed", model=key.model)
    embeddings = list(shards.values())
    pairs = [state[Key("acquire", shard=at.shard)] for at in shards]
    retrain = next(setting.retrain for setting in study.settings() if setting.name == key.sae)
    before = last.of("train", model=key.model, sae=key.sae, seed=key.seed) if last else []
    if retrain == "always" or not before:
        return pairs, embeddings
    used = before[0].inputs
    half = len(used) // 2  # recorded in the order of the task's arguments: pairs, then embeddings
    grown = sum(shard.rows for shard in embeddings) / max(1, sum(shard.rows for shard in used[half:]))
    return (pairs, embeddings) if retrain != "never" and grown >= retrain else (used[:half], used[half:])


def export_jobs(study: Study, state: State) -> list[Job]:
    """Every SAE on every shard of its model."""
    jobs = []
    for model in study.models:
        for setting in study.settings():
            for seed in setting.seeds:
                for at, embeddings in of(state, "embed", model=model.name).items():
                    trained = state.get(Key("train", model.name, setting.name, seed))
                    pairs = state[Key("acquire", shard=at.shard)]
                    inputs = {"sae": trained, "pairs": pairs, "embeddings": embeddings, "shard": at.shard}
                    jobs.append(
                        Job(
                            Key("export", model.name, setting.name, seed, at.shard), export, inputs if trained else None
                        )
                    )
    return jobs


ANALYZED = ("acquire", "embed", "train", "export")
REPORTED = (*ANALYZED, "ledger", "frontier", "analyze")


def expected(study: Study, state: State) -> dict[str, int]:
    """How many datasets each stage has when it is whole."""
    shards, seeds = len(of(state, "acquire")), sum(len(setting.seeds) for setting in study.settings())
    models = len(study.models)
    return {"acquire": shards, "embed": models * shards, "train": models * seeds, "export": models * seeds * shards}


def frontier_jobs(study: Study, state: State) -> list[Job]:
    """One job a model, where the study asks for it."""
    if study.frontier is None:
        return []
    jobs = []
    for model in study.models:
        shards = of(state, "embed", model=model.name)
        whole = bool(shards) and len(shards) == len(of(state, "acquire"))
        inputs = {
            "pairs": [state[Key("acquire", shard=at.shard)] for at in shards],
            "embeddings": list(shards.values()),
            "setting": study.frontier_setting(),
            "methods": study.frontier.methods,
            "k": study.frontier.k,
            "heldout": study.pairs.heldout,
        }
        jobs.append(Job(Key("frontier", model.name), frontier, inputs if whole else None))
    return jobs


def analyze_jobs(study: Study, state: State) -> list[Job]:
    """One job over the whole study."""
    counts = expected(study, state)
    whole = counts["acquire"] > 0 and all(len(of(state, stage)) == counts[stage] for stage in ANALYZED)
    entries = [entry(dataset=d, **k._asdict()) for stage in ANALYZED for k, d in of(state, stage).items()]
    counted = {"heldout": study.pairs.heldout, **study.analyze.model_dump(), "diets": study.diet_of()}
    inputs = {"entries": entries, **counted}
    return [Job(Key("analyze"), analyze, inputs if whole else None)]


def report_jobs(study: Study, state: State) -> list[Job]:
    """One page over the whole study, a map of every SAE that the study file names, and the explorer's data of all."""
    measured = len(of(state, "frontier")) == (len(study.models) if study.frontier else 0)
    whole = Key("analyze") in state and Key("ledger") in state and measured
    entries = [entry(dataset=d, **k._asdict()) for stage in REPORTED for k, d in of(state, stage).items()]
    config = _without_paths(study.model_dump(mode="json", exclude={"runtime": True, "pairs": set(HOW)}))
    jobs = [Job(Key("report"), report, {"entries": entries, "config": config} if whole else None)]
    named = [setting.name for setting in study.saes]  # data diets are compared, and not shown concept by concept
    trained = {key: sae for key, sae in of(state, "train").items() if key.sae in named}
    jobs += [Job(key._replace(stage="layout"), layout, {"sae": sae}) for key, sae in trained.items()]
    layouts = {f"{k.model}/{k.sae}/{k.seed}": d for k, d in of(state, "layout").items()}
    page = state.get(Key("report"))
    inputs = {"entries": entries, "layouts": layouts, "page": page, "config": config}
    drawn = whole and page is not None and len(layouts) == len(trained)
    return [*jobs, Job(Key("explorer"), explore, inputs if drawn else None)]


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The study with folders named by their last part: a page that does not change when the store is moved."""
    for setting in config["saes"]:
        if "checkpoint" in setting:
            setting["checkpoint"] = Path(setting["checkpoint"]).name
    config["pairs"] = located(config["pairs"], lambda path: Path(path).name)
    for model in config["models"]:
        for prefix in ("embeddings:", "open_clip:local-dir:", "hf:local-dir:"):
            if model["spec"].startswith(prefix):
                model["spec"] = prefix + Path(model["spec"].removeprefix(prefix)).name
    return config


def jobs_of(stage: str, study: Study, state: State, last: Run | None, store: Path) -> list[Job]:
    """The jobs of one stage, given the datasets of the stages before it."""
    makers: dict[str, Callable[[], list[Job]]] = {
        "acquire": lambda: acquire_jobs(study, state),
        "model": lambda: model_jobs(study, state, last),
        "embed": lambda: embed_jobs(study, state, store),
        "train": lambda: train_jobs(study, state, last, store),
        "export": lambda: export_jobs(study, state),
        "analyze": lambda: frontier_jobs(study, state) + analyze_jobs(study, state),
        "report": lambda: report_jobs(study, state),
    }
    return makers[stage]()


def lookup(job: Job, store: Path) -> Dataset | None:
    """The dataset of a job if it is there whole. Runs nothing."""
    return job.stage.lookup(store, **job.inputs) if job.inputs is not None else None
