"""The jobs of the stage train: the SAEs of each model, trained or imported, and the consensus SAEs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.consensus import ConsensusSAE
from flows.jobs.job import Given, Job, shards_of_model, step_of, training_rows
from flows.retrain import SHARDS, shards_of, training_shards
from flows.sections import ImportedSAE, SAESetting
from storage.dataset import Dataset
from storage.errors import BadInput
from storage.fingerprints import fingerprint
from storage.places import exists
from storage.runs import Key
from tasks.checkpoint import import_sae
from tasks.consensus import consensus
from tasks.train import sae


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
                shards = shards_of_model(given, model.name)
                if isinstance(setting, SAESetting):
                    options: dict[str, Any] = {"setting": _numbers(given, setting, shards), "seed": seed}
                    options["label"] = f"{model.name}, {setting.name}"
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
                label = f"{model.name}, {setting.name}"
                options = {"heldout": given.study.pairs.heldout, "data_half": setting.data_half, "label": label}
                inputs = {"saes": [entry.dataset for entry in seeds], **shards_of(seeds[0]), **options}
            jobs += [Job(Key("train", model.name, setting.name, seed), consensus, inputs) for seed in setting.seeds]
    return jobs


def _numbers(given: Given, setting: SAESetting, shards: dict[str, list[Dataset]]) -> dict[str, Any]:
    """A setting with the numbers that it leaves to the rows; `shards` are those that the SAE is trained on."""
    return setting.setting(training_rows(given.study, shards["embeddings"]))


def _imported(setting: ImportedSAE, store: Path) -> dict[str, Any]:
    """Arguments of `import_sae`: the fingerprint of the checkpoint, how to read the checkpoint, and its path."""
    path = Path(setting.checkpoint)
    if not exists(path):
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
