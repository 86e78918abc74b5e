"""The numbers from which the cost of each dataset is estimated, for a study to be run or for an earlier run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flows.config import Study
from flows.costs import Work, dimension_of
from flows.foresight import Shard
from flows.sections import SAESetting
from storage.runs import Key, Run
from storage.vector_size import vector_size


class Sizes(NamedTuple):
    """The study, its shards and the dimensions of its models. The work of every dataset follows from them."""

    study: Study
    shards: dict[int, Shard]
    dims: dict[str, int]  #: {model: dimensions of its embeddings}

    def work(self, key: Key) -> Work:
        """The numbers that the cost of the dataset with this key depends on."""
        study = self.study
        shards = [self.shards[key.shard]] if key.shard in self.shards else [*self.shards.values()]
        counted = {"all": 1.0, "heldout": study.pairs.heldout, "train": 1 - study.pairs.heldout}[study.analyze.split]
        work = Work(
            images=sum(shard.images for shard in shards),
            captions=sum(shard.captions for shard in shards),
            picture_bytes=sum(shard.bytes for shard in shards),
            counted=counted,
            trained=1 - study.pairs.heldout,
            models=len(study.models),
            points=len(study.frontier.methods) * len(study.frontier.k) if study.frontier else 0,
        )
        for model in study.models:
            if model.name == key.model:
                work = work._replace(dim=self.dims[model.name], spec=model.spec, dtype=model.dtype)
        if key.kind == "frontier" and study.frontier is not None:
            setting = study.frontier_setting(round(work.trained * work.rows))
            return work._replace(width=setting["width"], epochs=setting["epochs"])
        settings = [setting for setting in study.settings() if key.sae in (None, setting.name)]
        if key.sae is None:
            width = len(study.models) * sum(_width(setting) * len(setting.seeds) for setting in settings)
            return work._replace(width=width)
        if not settings:
            return work
        trained = settings[0] if isinstance(settings[0], SAESetting) else None
        return work._replace(
            width=_width(settings[0]),
            k=(trained.k if trained else settings[0].k) or 32,
            epochs=trained.setting(round(work.trained * work.rows))["epochs"] if trained else 0,
        )


def _width(setting: object) -> int:
    """Number of concepts of an SAE. An imported SAE counts as 4,096 concepts, since its files are not read here."""
    return int(getattr(setting, "width", 4096))


def sizes_of_plan(study: Study, shards: Sequence[Shard], known: dict[str, int]) -> Sizes:
    """Sizes of a study that is to be run. known: {spec: dimensions} of models that the store has embeddings of."""
    dims = {}
    for model in study.models:
        spec = model.parsed_spec
        size = vector_size(Path(spec.rest)) if spec.is_vectors else None
        dims[model.name] = size.dim if size else known.get(model.spec) or dimension_of(model.spec)
    return Sizes(study, {shard.number: shard for shard in shards}, dims)


def sizes_of_run(store: Path, study: Study, run: Run) -> Sizes | None:
    """Sizes of a study that has run, or None if its pairs are gone from the store."""
    import pyarrow.parquet as pq

    shards = {}
    for entry in run.of("acquire"):
        folder = store / entry.dataset.path
        try:
            images, captions = (
                pq.read_metadata(folder / f"{name}.parquet").num_rows for name in ("images", "captions")
            )
            stored = 0 if study.pairs.source == "embeddings" else (folder / "images.parquet").stat().st_size
        except OSError:
            return None
        shards[entry.shard or 0] = Shard(entry.shard or 0, entry.dataset, images, captions, stored)
    dims = {model.name: dimension_of(model.spec) for model in study.models}
    for entry in run.of("embed"):
        described = store / entry.dataset.path / "image" / "zarr.json"
        if entry.model in dims and described.is_file():
            dims[entry.model] = int(json.loads(described.read_text())["shape"][1])
    return Sizes(study, shards, dims) if shards else None
