"""The jobs of the stage report: the page of the study, the maps, and the data of the explorer."""

from __future__ import annotations

from typing import Any

from flows.jobs.analyze import ANALYZED
from flows.jobs.job import Given, Job, entries_of, in_order, shards_of_model, step_of
from storage.runs import Entry, Key, shown_settings
from tasks.explore import explore, item_layout, layout
from tasks.report import report

#: kinds of dataset that the page and the explorer show
REPORTED = (*ANALYZED, "ledger", "frontier", "analyze", "atoms")


def _reported(given: Given) -> dict[str, Any] | None:
    """Arguments that the page and the explorer share: entries and study. None while one of the entries is missing."""
    study, state = given.study, given.state
    measured = len(state.of("frontier")) == (len(study.models) if study.frontier else 0)
    if Key("analyze") not in state or Key("ledger") not in state or not measured:
        return None
    return {"entries": entries_of(given, REPORTED), "config": study.shown()}


def _shown(given: Given) -> list[Entry]:
    """Entries of the SAEs that the explorer shows, in the order of the study: those of the settings in the study file.

    Data diets, which are these settings trained on other data, are left out.
    """
    named = shown_settings(given.study.shown())
    return [e for e in in_order(given.study, given.state.of("train")) if e.sae in named]


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
        shards = shards_of_model(given, str(model))
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
