"""What each stage has to do: lists of jobs made from the study and the datasets so far. `run` and `status` share them.

A job is a cached task with its arguments. Nothing here runs anything but the sub-flow that goes through a list.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow
from prefect.context import TagsContext

from flows.config import SAE, Checkpoint, Study
from flows.pairs import HOW, located, rules_of, source_of
from storage import failures
from storage.dataset import Dataset
from storage.errors import BadInput
from storage.runs import Entry, Run
from storage.vectors import fingerprint
from tasks.acquire import fetch, ledger, retry, scan
from tasks.analyze import analyze, entry
from tasks.checkpoint import import_sae
from tasks.embed import adopt_vectors, embed, model_identity
from tasks.explore import explore, layout
from tasks.export import export
from tasks.frontier import frontier
from tasks.model import demo_model, features
from tasks.report import report
from tasks.stage import Runtime, Stage
from tasks.train import sae, train_together

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
    for model in study.models:
        kind, _, rest = model.spec.partition(":")
        made = state.get(Key("model", model.name))
        for key, pairs in of(state, "acquire").items():
            at = Key("embed", model.name, shard=key.shard)
            if kind == "embeddings":
                stamp = fingerprint(Path(rest), store / "sources" / "fingerprints.json")
                jobs.append(Job(at, adopt_vectors, {"pairs": pairs, "model": stamp, "path": rest}))
            elif kind == "demo":
                spec = f"open_clip:local-dir:{store / made.path}" if made else ""
                inputs = {"pairs": pairs, "model": made, "dtype": model.dtype, "spec": spec} if made else None
                jobs.append(Job(at, embed, inputs))
            else:
                identity, spec = model_identity(model.spec, store)
                jobs.append(Job(at, embed, {"pairs": pairs, "model": identity, "dtype": model.dtype, "spec": spec}))
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
                    **(_imported(setting, store) if isinstance(setting, Checkpoint) else _trained(setting, seed)),
                    "heldout": study.pairs.heldout,
                }
                jobs.append(Job(key, sae if isinstance(setting, SAE) else import_sae, inputs if whole else None))
    return jobs


def _trained(setting: SAE, seed: int) -> dict[str, Any]:
    return {"setting": setting.setting(), "seed": seed}


def _imported(setting: Checkpoint, store: Path) -> dict[str, Any]:
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


def run_job(job: Job, runtime: Runtime, *, refresh: bool = False) -> Entry:
    """Run one cached task and time it. Raises what the task raised."""
    if job.inputs is None:
        raise BadInput(f"{job.key}: what it is made from is missing: run the stages before it")
    began = time.perf_counter()
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force or refresh)
    state = task(**job.inputs, runtime=runtime, return_state=True)
    dataset = state.result()
    seconds = time.perf_counter() - began
    cached = state.name == "Cached"
    log.debug("%s: %s in %.3f s", job.key, "cached" if cached else "made", seconds)
    inputs = list(job.stage.address(**job.inputs).inputs)
    return Entry(**job.key._asdict(), dataset=dataset, inputs=inputs, seconds=round(seconds, 4), cached=cached)


def run_jobs(jobs: list[Job], runtime: Runtime) -> Iterator[Entry]:
    """Run jobs one after another: on one machine each of them uses every core."""
    for job in jobs:
        yield run_job(job, runtime)


def _acquire(study: Study, state: State, last: Run | None, runtime: Runtime) -> Iterator[Entry]:
    began = time.perf_counter()
    pairs, source = study.pairs, source_of(study.pairs)
    scanned = scan(source, pairs.shard_size, runtime)
    if last is not None and (scanned.new or scanned.changed):
        log.info("the source changed: %d new shards, %d changed", scanned.new, scanned.changed)
    for shard, listing in enumerate(scanned.listings):
        state[Key("scan", shard=shard)] = listing
        yield Entry(stage="scan", shard=shard, dataset=listing, seconds=round(time.perf_counter() - began, 4))
    made: list[Dataset] = []

    def fetched(job: Job) -> Entry:
        shard = job.key.shard or 0
        moved = failures.moved(runtime.store, scanned.source, shard, scanned.moved.get(shard, []))
        told = {"earlier": list(made), "moved": moved, "min_success": pairs.min_success}
        entry = run_job(job._replace(inputs={**(job.inputs or {}), **told}), runtime)
        made.append(entry.dataset)
        return entry

    yield from map(fetched, acquire_jobs(study, state))
    again = retry(scanned, made, source, rules_of(pairs), pairs.retry_after, runtime)
    if again is not None:
        shard = len(scanned.listings)
        state[Key("scan", shard=shard)] = again
        yield Entry(stage="scan", shard=shard, dataset=again)
        yield fetched(acquire_jobs(study, state)[-1])
    yield Entry(stage="ledger", dataset=ledger(scanned.dropped, made, pairs.min_success, runtime))


def _in_turn(stage: str, study: Study, state: State, last: Run | None, runtime: Runtime) -> Iterator[Entry]:
    """Run the jobs of a stage of which later ones are made from earlier ones."""
    for place in range(len(jobs_of(stage, study, state, last, runtime.store))):
        job = jobs_of(stage, study, state, last, runtime.store)[place]  # anew: it needs what was made just before
        entry = run_job(job, runtime)
        state[job.key] = entry.dataset
        yield entry


def _train(study: Study, state: State, last: Run | None, runtime: Runtime) -> Iterator[Entry]:
    jobs = train_jobs(study, state, last, runtime.store)
    missing = [
        job.inputs
        for job in jobs
        if job.stage is sae and job.inputs is not None and (runtime.force or lookup(job, runtime.store) is None)
    ]
    if len(missing) > 1:
        train_together(missing, runtime)
        adopt = runtime.model_copy(update={"force": False})
        for job in jobs:  # those that were not trained just now are made as ever
            yield run_job(job, adopt if job.stage is sae else runtime, refresh=runtime.force)
    else:
        yield from run_jobs(jobs, runtime)


def run_stage(stage: str, study: Study, state: State, last: Run | None, runtime: Runtime) -> list[Entry]:
    """Run one stage as a Prefect sub-flow of its name. `state` holds the datasets of the stages before it."""
    runners: dict[str, Callable[[], Iterator[Entry]]] = {
        "acquire": lambda: _acquire(study, state, last, runtime),
        "model": lambda: _in_turn(stage, study, state, last, runtime),
        "train": lambda: _train(study, state, last, runtime),
        "report": lambda: _in_turn(stage, study, state, last, runtime),
    }
    runner = runners.get(stage, lambda: run_jobs(jobs_of(stage, study, state, last, runtime.store), runtime))
    entries: list[Entry] = []

    # A closure: handles and studies need not travel through Prefect's parameters.
    @flow(name=stage, flow_run_name=f"{study.name}: {stage}", persist_result=False, result_storage=runtime.store)
    def stage_flow() -> None:
        # The flow's tags are not its tasks': for tagged tasks Prefect asks the server about concurrency limits (60 ms).
        with TagsContext(current_tags=set()):
            entries.extend(runner())

    stage_flow()
    return entries
