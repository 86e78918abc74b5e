"""The jobs of the stage model: the demo models that the study names."""

from __future__ import annotations

from flows.config import Study
from flows.jobs.job import Given, Job, step_of
from storage.dataset import Dataset
from storage.runs import Key
from tasks.model import demo_model, features
from tasks.specs import Spec

DEMO_SEED = 0  # seed of the demo models' projections


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
