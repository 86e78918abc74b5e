"""The jobs of the stage embed: the embeddings of each shard, and their checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.jobs.job import Given, Job, encoder_of, step_of
from flows.sections import Model
from storage.errors import is_bad_input
from storage.runs import Entry, Key
from storage.sources.section import MAX_PIXELS
from storage.vector_shards import digests
from tasks.checks import check_embeddings
from tasks.embed import adopt_vectors, embed
from tasks.stage import Stage


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
            if not is_bad_input(error):
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
    encoder = encoder_of(given, model)
    if encoder is None:
        return [(embed, None)] * len(pairs)
    # `embed` decodes images up to this size. A study with a lower limit than the default needs no lower limit here:
    # `acquire` has already refused its larger images.
    limit = max(given.study.pairs.max_pixels, MAX_PIXELS)
    options = {**encoder, "max_pixels": limit, "decode": given.study.decode}
    return [(embed, {"pairs": each, **options}) for each in pairs]


@step_of("embed")
def embedding_checks(given: Given) -> list[Job]:
    """One job per model and shard, which checks the embeddings. No dataset is made from the results of these checks."""
    jobs = []
    for model in given.study.models:
        for e in given.state.of("embed", model=model.name):
            inputs = {"pairs": given.state[Key("acquire", shard=e.shard)].dataset, "embeddings": e.dataset}
            jobs.append(Job(Key("checks", model.name, shard=e.shard), check_embeddings, inputs))
    return jobs
