"""The jobs of each stage, listed from the study and the datasets so far. `run` and `status` use the same lists.

A job is a cached task with its arguments. A stage consists of one or more steps. The jobs of one step do not depend on
each other. This module runs no task.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flows.config import AnySetting, ImportedSAE, Model, SAESetting, Study
from flows.consensus import ConsensusSAE
from flows.retrain import SHARDS, shards_of, training_shards
from flows.stages import STAGES
from storage.dataset import Dataset
from storage.duplicates import digest_of_duplicates, read_duplicates
from storage.errors import BadInput
from storage.fingerprints import fingerprint
from storage.runs import Entry, Key, Run, State, shown_settings
from storage.sources.section import MAX_PIXELS, rules_of, source_of
from storage.vector_shards import digests
from tasks.acquire import distinct, duplicates, fetch
from tasks.analyze import analyze, correspondence, matching, measures, names, pairs_of_seeds, partners, space, versions
from tasks.checkpoint import import_sae
from tasks.checks import check_embeddings
from tasks.consensus import consensus
from tasks.embed import adopt_vectors, embed, model_identity
from tasks.explore import explore, item_layout, layout
from tasks.export import atoms, export
from tasks.frontier import frontier
from tasks.model import demo_model, features
from tasks.report import report
from tasks.specs import Spec
from tasks.stage import Stage
from tasks.train import sae

log = logging.getLogger("bridgescope")

DEMO_SEED = 0  # seed of the demo models' projections


class Job(NamedTuple):
    """A cached task with its arguments, to run or to look up. `inputs` is None while one of its datasets is missing."""

    key: Key
    stage: Stage
    inputs: dict[str, Any] | None
    problem: Exception | None = None  #: bad input that was met while the job was listed; `inputs` is then None

    def arguments(self) -> dict[str, Any]:
        """Arguments of the task. Raises `problem`, or BadInput while a dataset that the job depends on is missing."""
        if self.problem is not None:
            raise self.problem
        if self.inputs is None:
            raise BadInput(f"{self.key}: its inputs are missing: run the earlier stages first")
        return self.inputs

    def lookup(self, store: Path) -> Dataset | None:
        """Return the dataset of this job if it is complete, else None. Runs no task."""
        return self.stage.lookup(store, **self.inputs) if self.inputs is not None else None

    def entry(self, dataset: Dataset, seconds: float = 0.0, *, cached: bool = False) -> Entry:
        """The entry that records the dataset of this job in a run."""
        inputs = list(self.stage.address(**self.arguments()).inputs)
        return Entry(**self.key._asdict(), dataset=dataset, inputs=inputs, seconds=round(seconds, 4), cached=cached)


class Given(NamedTuple):
    """The study and the datasets from which a step lists its jobs."""

    study: Study
    state: State  #: the entries of the earlier steps
    last: Run | None  #: the newest run of the study
    store: Path

    def is_embedded(self, model: str) -> bool:
        """Return True when there is a shard of pairs and this model has embedded every one of them."""
        shards = len(self.state.of("embed", model=model))
        return 0 < shards == len(self.state.of("acquire"))


Step = Callable[[Given], list[Job]]
STEPS: dict[str, list[Step]] = {name: [] for name in STAGES}  #: the steps of each stage, in order


def step_of(stage: str) -> Callable[[Step], Step]:
    """Decorator that appends a function to the steps of a stage."""

    def add(step: Step) -> Step:
        STEPS[stage].append(step)
        return step

    return add


def jobs_of(stage: str, given: Given) -> Iterator[Job]:
    """Yield the jobs of a stage. The jobs of a step are listed only after the jobs of the previous step were yielded.

    So their arguments include the datasets that the previous step added to the state.
    """
    for step in STEPS[stage]:
        yield from step(given)


def current_ledger(last: Run, state: State) -> list[Entry]:
    """The ledger of the last run, and its labels if it has any, if the ledger was written for the shards of `state`.

    Runs of version 0.1 do not record the shards of a ledger.
    """
    shards = {entry.dataset.path for entry in state.of("acquire")}
    ledger = [entry for entry in last.of("ledger") if {handle.path for handle in entry.inputs} in (set(), shards)]
    return [*ledger, *last.of("labels")] if ledger else []


@step_of("acquire")
def fetches(given: Given) -> list[Job]:
    """One job per listing of the scan. It makes a shard of pairs.

    If the study drops duplicates, this shard still contains them. Its kind is then `fetch` instead of `acquire`.
    """
    pairs = given.study.pairs
    kind = "acquire" if pairs.duplicates == "keep" else "fetch"
    source, rules = source_of(pairs), rules_of(pairs)
    return [
        Job(Key(kind, shard=e.shard), fetch, {"listing": e.dataset, "source": source, "rules": rules})
        for e in given.state.of("scan")
    ]


@step_of("acquire")
def duplicate_tables(given: Given) -> list[Job]:
    """One job for the table of duplicates, if the study drops duplicates."""
    if given.study.pairs.duplicates == "keep":
        return []
    fetched = [e.dataset for e in given.state.of("fetch")]
    whole = 0 < len(fetched) == len(given.state.of("scan"))
    return [Job(Key("duplicates"), duplicates, {"pairs": fetched} if whole else None)]


@step_of("acquire")
def distinct_pairs(given: Given) -> list[Job]:
    """One job per shard, if the study drops duplicates. It makes the shard without its duplicates."""
    table = given.state.dataset("duplicates")
    found = read_duplicates(given.store, table) if table and not table.is_planned else {}
    jobs = []
    for e in given.state.of("fetch"):
        dropped = digest_of_duplicates(found.get(e.dataset.digest, {}))
        inputs = {"pairs": e.dataset, "dropped": dropped, "table": table} if table else None
        jobs.append(Job(Key("acquire", shard=e.shard), distinct, inputs))
    return jobs


def _demo_models(study: Study) -> list[tuple[str, str]]:
    """(name, variant) of each demo model of the study."""
    variants = [(model.name, model.parsed_spec.variant) for model in study.models]
    return [(name, variant) for name, variant in variants if variant is not None]


@step_of("model")
def tower_features(given: Given) -> list[Job]:
    """One job per demo model, which computes the features of its towers.

    If the last run made this model, the pairs of that run are used again. So pairs added later do not change the model.
    """
    pairs = [e.dataset for e in given.state.of("acquire")]
    jobs = []
    for name, variant in _demo_models(given.study):
        training = _pairs_of_last_run(given, name, variant) or pairs
        inputs = {"pairs": training, "heldout": given.study.pairs.heldout} if training else None
        jobs.append(Job(Key("features", name), features, inputs))
    return jobs


@step_of("model")
def demo_models(given: Given) -> list[Job]:
    """One job per demo model, which trains its projections."""
    jobs = []
    for name, variant in _demo_models(given.study):
        towers = given.state.dataset("features", model=name)
        inputs = {"features": towers, "variant": variant, "seed": DEMO_SEED} if towers else None
        jobs.append(Job(Key("model", name), demo_model, inputs))
    return jobs


def _pairs_of_last_run(given: Given, name: str, variant: str) -> list[Dataset] | None:
    """The pairs from which the last run made this demo model.

    None if the last run made no model of this name, or used another variant or split.
    """
    last = given.last
    if last is None or not last.of("model", model=name):
        return None
    specs = {model["name"]: model["spec"] for model in last.config["models"]}
    same = (
        specs.get(name) == str(Spec("demo", variant)) and last.config["pairs"]["heldout"] == given.study.pairs.heldout
    )
    return list(last.of("features", model=name)[0].inputs) if same else None


@step_of("embed")
def embeddings(given: Given) -> list[Job]:
    """One job per model and shard of pairs."""
    shards = given.state.of("acquire")
    jobs = []
    for model in given.study.models:
        keys = [Key("embed", model.name, shard=shard.shard) for shard in shards]
        try:
            tasks = _embedded(given, model, shards)
            jobs += [Job(key, stage, inputs) for key, (stage, inputs) in zip(keys, tasks, strict=True)]
        except Exception as error:
            if getattr(error, "exit_code", 1) != 2:
                raise
            jobs += [Job(key, embed, None, error) for key in keys]  # the other models go on
    return jobs


def _embedded(given: Given, model: Model, shards: list[Entry]) -> list[tuple[Stage, dict[str, Any] | None]]:
    """(task, arguments) to embed each shard with a model. The model's files are read only once, for all shards."""
    pairs = [shard.dataset for shard in shards]
    if model.parsed_spec.is_vectors:
        path = model.parsed_spec.rest
        if any(shard.is_planned for shard in pairs):  # only in `plan`: the rows of a planned shard are not known yet
            return [(adopt_vectors, None)] * len(pairs)
        rows = digests(given.store, Path(path), pairs) if pairs else []
        return [(adopt_vectors, {"pairs": p, "rows": r, "path": path}) for p, r in zip(pairs, rows, strict=True)]
    encoder = _encoder(given, model)
    if encoder is None:
        return [(embed, None)] * len(pairs)
    # `embed` decodes images up to this size. A study with a lower limit than the default needs no lower limit here:
    # `acquire` has already refused its larger images.
    limit = max(given.study.pairs.max_pixels, MAX_PIXELS)
    options = {**encoder, "max_pixels": limit, "decode": given.study.decode}
    return [(embed, {"pairs": each, **options}) for each in pairs]


def _encoder(given: Given, model: Model) -> dict[str, Any] | None:
    """Arguments of a task that loads a model. None while a demo model is missing.

    Raises BadInput for a folder that does not exist.
    """
    identity: Dataset | str | None
    if model.parsed_spec.variant is not None:
        identity = given.state.dataset("model", model=model.name)
        spec = str(Spec.of_folder("open_clip", given.store / identity.path)) if identity else ""
    else:
        identity, spec = model_identity(model.spec, given.store)
    return {"model": identity, "spec": spec, "dtype": model.dtype} if identity is not None else None


@step_of("embed")
def embedding_checks(given: Given) -> list[Job]:
    """One job per model and shard, which checks the embeddings. No dataset is made from the results of these checks."""
    jobs = []
    for model in given.study.models:
        for e in given.state.of("embed", model=model.name):
            inputs = {"pairs": given.state[Key("acquire", shard=e.shard)].dataset, "embeddings": e.dataset}
            jobs.append(Job(Key("checks", model.name, shard=e.shard), check_embeddings, inputs))
    return jobs


@step_of("train")
def saes(given: Given) -> list[Job]:
    """One job per model, setting and seed, without the consensus SAEs."""
    jobs = []
    settings = [setting for setting in given.study.settings() if not isinstance(setting, ConsensusSAE)]
    for model in given.study.models:
        whole = given.is_embedded(model.name)
        for setting in settings:
            for seed in setting.seeds:
                key = Key("train", model.name, setting.name, seed)
                stage = sae if isinstance(setting, SAESetting) else import_sae
                if not whole:
                    jobs.append(Job(key, stage, None))
                    continue
                shards = _shards(given, model.name)
                if isinstance(setting, SAESetting):
                    options: dict[str, Any] = {"setting": _numbers(given, setting, shards), "seed": seed}
                else:
                    try:
                        options = _imported(setting, given.store)
                    except BadInput as error:
                        jobs.append(Job(key, stage, None, error))  # the other SAEs go on
                        continue
                job = Job(key, stage, {**shards, "heldout": given.study.pairs.heldout, **options})
                jobs.append(job._replace(inputs=_trained_on(given, job, setting)))
    return jobs


@step_of("train")
def consensus_saes(given: Given) -> list[Job]:
    """One job per model and setting of several seeds, if the study makes consensus SAEs.

    Its encoder is trained on the shards that the setting's first seed was trained on.
    """
    jobs = []
    for model in given.study.models:
        for setting in given.study.settings():
            if not isinstance(setting, ConsensusSAE):
                continue
            keys = [Key("train", model.name, setting.of, seed) for seed in setting.of_seeds]
            seeds = [given.state[key] for key in keys if key in given.state]
            inputs: dict[str, Any] | None = None
            if len(seeds) == len(keys) and all(entry.inputs for entry in seeds):
                options = {"heldout": given.study.pairs.heldout, "data_half": setting.data_half}
                inputs = {"saes": [entry.dataset for entry in seeds], **shards_of(seeds[0]), **options}
            jobs += [Job(Key("train", model.name, setting.name, seed), consensus, inputs) for seed in setting.seeds]
    return jobs


def _numbers(given: Given, setting: SAESetting, shards: dict[str, list[Dataset]]) -> dict[str, Any]:
    """A setting with the numbers that it leaves to the rows; `shards` are those that the SAE is trained on."""
    return setting.setting(training_rows(given.study, shards["embeddings"]))


def training_rows(study: Study, embeddings: list[Dataset]) -> int:
    """Number of training rows of both modalities in these shards, up to the chance of the split."""
    return round((1 - study.pairs.heldout) * sum(shard.rows for shard in embeddings))


def _shards(given: Given, model: str) -> dict[str, list[Dataset]]:
    """The pairs and the embeddings of all shards of a model, as arguments of a task."""
    embedded = given.state.of("embed", model=model)
    pairs = [given.state[Key("acquire", shard=e.shard)].dataset for e in embedded]
    return {"pairs": pairs, "embeddings": [e.dataset for e in embedded]}


def _imported(setting: ImportedSAE, store: Path) -> dict[str, Any]:
    """Arguments of `import_sae`: the fingerprint of the checkpoint, how to read the checkpoint, and its path."""
    path = Path(setting.checkpoint)
    if not path.exists():
        raise BadInput(f"sae {setting.name}: checkpoint {path}: no such file or folder")
    stamp = fingerprint(path, store / "sources" / "fingerprints.json")
    options = {"architecture": setting.architecture, "k": setting.k, "encoder": setting.encoder}
    return {"checkpoint": stamp, "path": str(path), **options}


def _trained_on(given: Given, job: Job, setting: SAESetting | ImportedSAE) -> dict[str, Any]:
    """The arguments of a job, with the shards to train the SAE on, by the key `retrain` of its setting.

    job: the job that trains on all shards.
    """
    before = given.last.of("train", model=job.key.model, sae=job.key.sae, seed=job.key.seed) if given.last else []
    if setting.retrain == "always" or not before:
        return job.arguments()
    every = {name: job.arguments()[name] for name in SHARDS}
    kept = shards_of(before[0])
    arguments = dict(job.arguments())
    if isinstance(setting, SAESetting):  # numbers that are left to the rows would differ only because rows were added
        arguments["setting"] = _numbers(given, setting, kept)
    chosen = training_shards(given.store, setting.retrain, before[0], every, job.stage.address(**arguments))
    return {**(arguments if chosen == kept else job.arguments()), **chosen}


@step_of("export")
def exports(given: Given) -> list[Job]:
    """The jobs that write what users and statistics read of an SAE: its activations and its dictionary."""
    return [*activations(given), *dictionaries(given)]


def activations(given: Given) -> list[Job]:
    """One job per SAE and shard of its model."""
    jobs = []
    for model in given.study.models:
        for setting in given.study.settings():
            for seed in setting.seeds:
                trained = given.state.dataset("train", model=model.name, sae=setting.name, seed=seed)
                for e in given.state.of("embed", model=model.name):
                    pairs = given.state[Key("acquire", shard=e.shard)].dataset
                    inputs = {"sae": trained, "pairs": pairs, "embeddings": e.dataset, "shard": e.shard}
                    key = Key("export", model.name, setting.name, seed, e.shard)
                    jobs.append(Job(key, export, inputs if trained else None))
    return jobs


def dictionaries(given: Given) -> list[Job]:
    """One job per SAE, which writes its dictionary as a table."""
    jobs = []
    for model in given.study.models:
        for setting in given.study.settings():
            for seed in setting.seeds:
                trained = given.state.dataset("train", model=model.name, sae=setting.name, seed=seed)
                key = Key("atoms", model.name, setting.name, seed)
                jobs.append(Job(key, atoms, {"sae": trained} if trained else None))
    return jobs


ANALYZED = ("acquire", "labels", "embed", "train", "export")  #: kinds of dataset that the stage analyze reads
#: kinds of dataset that the page and the explorer show
REPORTED = (*ANALYZED, "ledger", "frontier", "analyze", "atoms")


def entries_of(state: State, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Entries of these kinds, as an argument of a task."""
    return [e.argument() for kind in kinds for e in state.of(kind)]


@step_of("analyze")
def parts_without_codes(given: Given) -> list[Job]:
    """The jobs that read no codes of SAEs: one per model, and one per model, setting and pair of seeds."""
    return [*spaces(given), *matchings(given)]


@step_of("analyze")
def parts_with_codes_and_frontiers(given: Given) -> list[Job]:
    """The jobs that read codes, and those for the frontier of each model. These are the long jobs of the stage."""
    return [*parts_of_saes(given), *partners_of_seeds(given), *correspondences(given), *frontiers(given)]


def frontiers(given: Given) -> list[Job]:
    """One job per model; none when the study has no section [frontier]."""
    study = given.study
    if study.frontier is None:
        return []
    jobs = []
    for model in study.models:
        inputs = {
            **_shards(given, model.name),
            "setting": study.frontier_setting(training_rows(study, _shards(given, model.name)["embeddings"])),
            "methods": study.frontier.methods,
            "k": study.frontier.k,
            "heldout": study.pairs.heldout,
        }
        jobs.append(Job(Key("frontier", model.name), frontier, inputs if given.is_embedded(model.name) else None))
    return jobs


def spaces(given: Given) -> list[Job]:
    """One job per model, which computes what needs no SAE."""
    study, state, of = given.study, given.state, versions("model")
    shared = *state.of("acquire"), *state.of("labels")
    jobs = []
    for model in study.models:
        entries = [e.argument() for e in (*shared, *state.of("embed", model=model.name))]
        inputs = {"entries": entries, "heldout": study.pairs.heldout, "split": study.analyze.split, "statistics": of}
        jobs.append(Job(Key("space", model.name), space, inputs if given.is_embedded(model.name) else None))
    return jobs


def matchings(given: Given) -> list[Job]:
    """One job per model, family of settings and pair of seeds. A family is a setting with its data diets."""
    study, state, of = given.study, given.state, versions("pair")
    jobs = []
    for model in study.models:
        for family in study.families():
            groups = pairs_of_seeds((each.name, seed) for each in family for seed in each.seeds)
            for (seed, other), pairs in groups.items():
                keys = [Key("train", model.name, *sae) for sae in sorted({sae for pair in pairs for sae in pair})]
                inputs = {"entries": [state[key].argument() for key in keys if key in state], "statistics": of}
                key = Key("matching", model.name, family[0].name, seed, other_seed=other if other != seed else None)
                jobs.append(Job(key, matching, inputs if all(key in state for key in keys) else None))
    return jobs


def parts_of_saes(given: Given) -> list[Job]:
    """One job per SAE, which computes its statistics."""
    study, state = given.study, given.state
    own_options = study.analyze.model_dump(exclude={"independent"})
    options = {"heldout": study.pairs.heldout, **own_options, "statistics": versions("sae")}
    judge = study.analyze.independent
    jobs = []
    for model in study.models:
        pairs, embedded = state.of("acquire"), state.of("embed", model=model.name)
        shared = *pairs, *state.of("labels"), *embedded
        own = state.dataset("space", model=model.name) if given.is_embedded(model.name) else None
        judged = [] if judge in (None, model.name) else [e.argument() for e in state.of("embed", model=judge)]
        if judge not in (None, model.name) and not given.is_embedded(str(judge)):
            own = None  # the part waits for the embeddings of the other model too
        for setting in study.settings():
            for seed in setting.seeds:
                at = {"model": model.name, "sae": setting.name, "seed": seed}
                trained, exported = state.dataset("train", **at), state.of("export", **at)
                inputs = None
                if own and trained and len(exported) == len(pairs):
                    entries = [e.argument() for e in (*shared, *state.of("train", **at), *exported)]
                    inputs = {"entries": entries, "space": own, "path": trained.path, **options}
                    inputs["data_half"] = getattr(setting, "data_half", None)
                    inputs["twin_of"] = getattr(setting, "twin_of", None)
                    inputs["independent"] = judged or None
                jobs.append(Job(Key("measures", model.name, setting.name, seed), measures, inputs))
    return jobs


def partners_of_seeds(given: Given) -> list[Job]:
    """One job per model, setting and pair of seeds, which compares the codes of the two seeds."""
    jobs = []
    for model in given.study.models:
        for setting in _learned(given.study):
            for seed, other in itertools.combinations(sorted(setting.seeds), 2):
                key = Key("partners", model.name, setting.name, seed, other_seed=other)
                names = [(model.name, setting.name, each) for each in (seed, other)]
                jobs.append(Job(key, partners, _compared(given, "seeds", names)))
    return jobs


def correspondences(given: Given) -> list[Job]:
    """One job per setting and seed, which compares the codes of all models; none for a study of one model."""
    models = [model.name for model in given.study.models]
    if len(models) == 1:
        return []
    jobs = []
    for setting in _learned(given.study):
        for seed in setting.seeds:
            names = [(model, setting.name, seed) for model in models]
            jobs.append(
                Job(Key("correspondence", None, setting.name, seed), correspondence, _compared(given, "models", names))
            )
    return jobs


def _learned(study: Study) -> list[AnySetting]:
    """The settings without frozen twins.

    Nothing reads the names of a twin's concepts, or compares its codes with those of another SAE: a twin stands beside
    its setting by the statistics of the SAE itself, and these parts would make the demo's analysis a fifth longer.
    """
    return [setting for setting in study.settings() if getattr(setting, "twin_of", None) is None]


def _compared(given: Given, per: str, names: list[tuple[str, str, int]]) -> dict[str, Any] | None:
    """Arguments of a task that compares the codes of SAEs (model, setting, seed). None while one of them is missing."""
    study, state = given.study, given.state
    pairs, models = state.of("acquire"), dict.fromkeys(model for model, *_ in names)
    if not all(given.is_embedded(model) for model in models):
        return None
    entries = [*pairs, *(e for model in models for e in state.of("embed", model=model))]
    for model, setting, seed in names:
        at = {"model": model, "sae": setting, "seed": seed}
        trained, exported = state.of("train", **at), state.of("export", **at)
        if not trained or len(exported) != len(pairs):
            return None
        entries += [*trained, *exported]
    arguments = [e.argument() for e in entries]
    options = {"heldout": study.pairs.heldout, "split": study.analyze.split, "statistics": versions(per)}
    return {"entries": arguments, **options}


@step_of("analyze")
def names_of_saes(given: Given) -> list[Job]:
    """One job per SAE, which names its concepts and scores the names with the model's encoder, if it has one."""
    study, state = given.study, given.state
    options = {"heldout": study.pairs.heldout, "statistics": versions("names")}
    jobs = []
    for model in study.models:
        shared = *state.of("acquire"), *state.of("embed", model=model.name)
        problem, encoder = None, None
        if not model.parsed_spec.is_vectors:
            try:
                encoder = _encoder(given, model)
            except Exception as error:
                if getattr(error, "exit_code", 1) != 2:
                    raise
                problem = error  # the other models go on
        for setting in _learned(study):
            for seed in setting.seeds:
                at = {"model": model.name, "sae": setting.name, "seed": seed}
                own = state.dataset("measures", **at)
                inputs = None
                if own and (encoder or model.parsed_spec.is_vectors):
                    entries = [e.argument() for e in (*shared, *state.of("train", **at), *state.of("export", **at))]
                    inputs = {"entries": entries, "measures": own, **options, **(encoder or {})}
                jobs.append(Job(Key("names", model.name, setting.name, seed), names, inputs, problem))
    return jobs


@step_of("analyze")
def tables(given: Given) -> list[Job]:
    """One job per study, which joins the tables that the other jobs of the stage make."""
    parts_of = (spaces, parts_of_saes, names_of_saes, matchings, partners_of_seeds, correspondences)
    keys = sorted((job.key for jobs in parts_of for job in jobs(given)), key=str)
    whole = all(key in given.state for key in keys)
    parts = [given.state[key].argument() for key in keys] if whole else []
    inputs = {"parts": parts, "statistics": versions(), "twins": twins(given.study) or None}
    return [Job(Key("analyze"), analyze, inputs if whole else None)]


def twins(study: Study) -> list[dict[str, str]]:
    """The frozen twins of the study, a row of the table `twins` each: model, sae, twin_of, frozen."""
    of_study = [each for each in study.settings() if isinstance(each, SAESetting) and each.twin_of is not None]
    return [
        {"model": model.name, "sae": each.name, "twin_of": str(each.twin_of), "frozen": str(each.frozen)}
        for model in study.models
        for each in of_study
    ]


def _reported(given: Given) -> dict[str, Any] | None:
    """Arguments that the page and the explorer share: entries and study. None while one of the entries is missing."""
    study, state = given.study, given.state
    measured = len(state.of("frontier")) == (len(study.models) if study.frontier else 0)
    if Key("analyze") not in state or Key("ledger") not in state or not measured:
        return None
    return {"entries": entries_of(state, REPORTED), "config": study.shown()}


def _shown(given: Given) -> list[Entry]:
    """Entries of the SAEs that the explorer shows: those of the settings in the study file.

    Data diets, which are these settings trained on other data, are left out.
    """
    named = shown_settings(given.study.shown())
    return [e for e in given.state.of("train") if e.sae in named]


@step_of("report")
def page_and_layouts(given: Given) -> list[Job]:
    """One job for the page of the study, and one per SAE that the explorer shows, for the map of its concepts."""
    layouts = [Job(e.key._replace(kind="layout"), layout, {"sae": e.dataset}) for e in _shown(given)]
    return [Job(Key("report"), report, _reported(given)), *layouts, *item_layouts(given)]


def item_layouts(given: Given) -> list[Job]:
    """One job per model, for the map of its items by embeddings, and one per model and setting, by the codes.

    The codes are those of the first seed of the setting.
    """
    jobs = []
    for model in dict.fromkeys(e.model for e in _shown(given)):
        shards = _shards(given, str(model))
        jobs.append(Job(Key("item_layout", model), item_layout, {**shards, "codes": []}))
        of_model = [e for e in _shown(given) if e.model == model]
        for first in {e.sae: e for e in reversed(of_model)}.values():
            codes = [e.dataset for e in given.state.of("export", model=model, sae=first.sae, seed=first.seed)]
            whole = len(codes) == len(shards["pairs"])
            inputs = {**shards, "codes": codes} if whole else None
            jobs.append(Job(Key("item_layout", model, first.sae, first.seed), item_layout, inputs))
    return jobs


@step_of("report")
def explorer_data(given: Given) -> list[Job]:
    """One job per study, which writes the explorer's data."""
    layouts = {f"{e.model}/{e.sae}/{e.seed}": e.dataset for e in given.state.of("layout")}
    page, shared = given.state.dataset("report"), _reported(given)
    maps = {
        e.model if e.sae is None else f"{e.model}/{e.sae}/{e.seed}": e.dataset for e in given.state.of("item_layout")
    }
    drawn = len(layouts) == len(_shown(given)) and len(maps) == len(item_layouts(given))
    whole = shared is not None and page is not None and drawn
    inputs = {**(shared or {}), "layouts": layouts, "items": maps, "page": page} if whole else None
    return [Job(Key("explorer"), explore, inputs)]
