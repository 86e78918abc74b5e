"""The jobs of the stage analyze: the parts that compute statistics, and the one that joins their tables."""

from __future__ import annotations

import itertools
from typing import Any

from flows.config import Study
from flows.jobs.job import Given, Job, encoder_of, shards_of_model, step_of, training_rows
from flows.sections import AnySetting, SAESetting
from storage.errors import is_bad_input
from storage.runs import Key
from tasks.analyze import analyze, correspondence, matching, measures, names, pairs_of_seeds, partners, space, versions
from tasks.frontier import frontier

ANALYZED = ("acquire", "labels", "embed", "train", "export")  #: kinds of dataset that the stage analyze reads


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
            **shards_of_model(given, model.name),
            "setting": study.frontier_setting(training_rows(study, shards_of_model(given, model.name)["embeddings"])),
            "methods": study.frontier.methods,
            "k": study.frontier.k,
            "heldout": study.pairs.heldout,
            "label": model.name,
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
                encoder = encoder_of(given, model)
            except Exception as error:
                if not is_bad_input(error):
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
