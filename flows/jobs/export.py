"""The jobs of the stage export: the activations and the dictionary of each SAE."""

from __future__ import annotations

from flows.jobs.job import Given, Job, step_of
from storage.runs import Key
from tasks.export import atoms, export


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
