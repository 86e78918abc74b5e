"""Whether the memory of a GPU suffices for trainings, and for how many at once, which is said before they start."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sae.budget import resolved
from sae.memory import fitting, memory
from sae.settings import Settings
from storage.dataset import Dataset
from storage.embeddings import open_array
from storage.errors import BadInput
from tasks.devices import device_of
from tasks.embed import forget_models
from vlm.feed import GPU_BATCH
from vlm.memory import memory as embedding_memory
from vlm.memory import together as embedded_together

log = logging.getLogger("bridgescope")


class Estimate(NamedTuple):
    """What a training takes of a GPU's memory, in bytes."""

    alone: int
    together: int  #: all seeds of the setting, trained together


def of_training(setting: dict[str, Any], rows: int, dim: int, seeds: int) -> Estimate:
    """What the SAEs of a setting take. setting: with numbers in place of "auto". rows: those of both modalities."""
    settings = resolved(Settings(**{name: value for name, value in setting.items() if name != "data_half"}), rows)
    return Estimate(memory(settings, rows, dim).total, memory(settings, rows, dim, together=seeds).total)


def of_embedding(spec: str, dtype: str, images: int | str) -> tuple[int | None, int]:
    """(bytes that embedding with a model takes of a GPU, images in a batch). images: "auto" means those of a GPU.

    None stands for a model whose name does not say its size.
    """
    batch = _batch(images)
    found = embedding_memory(spec, dtype, batch)
    return None if found is None else found.total, batch


class Pass(NamedTuple):
    """What a pass over a shard takes of a GPU's memory, where all models of the pass are loaded."""

    total: int  #: bytes
    models: int  #: number of models
    unknown: list[str]  #: names of the models that are not counted, since their own names do not say their sizes


def of_pass(models: Mapping[str, tuple[str, str]], images: int | str, at_once: int | None) -> Pass | None:
    """What a pass with some models takes. models: {name: (spec, dtype)}; at_once: models in a pass at most.

    None if the pass has only one model, or no model of a known size.
    """
    found = {name: embedding_memory(*each, _batch(images)) for name, each in models.items()}
    known = [memory for memory in found.values() if memory is not None]
    count = min(len(models), at_once or len(models))
    if count < 2 or not known:
        return None
    return Pass(embedded_together(known, count).total, count, [name for name, each in found.items() if each is None])


def _batch(images: int | str) -> int:
    return GPU_BATCH if images == "auto" else int(images)


class Room(NamedTuple):
    """The memory of a GPU, in bytes."""

    free: int
    total: int


def room_on(place: str) -> Room:
    """The memory of a GPU. What this process holds of it and can make again is freed first: the models of embed."""
    import torch

    forget_models()
    torch.cuda.empty_cache()
    return Room(*torch.cuda.mem_get_info(place))


def tell_memory(
    store: Path,
    embeddings: Sequence[Dataset],
    setting: dict[str, Any],
    heldout: float,
    device: str,
    seeds: int = 1,
    at_once: int | None = None,
) -> int:
    """How many of the SAEs of some seeds of one setting are trained at once. Logs what they take of a GPU's memory.

    On the CPU the answer is 1, and nothing is logged. at_once: how many SAEs are stacked at most, if the GPU has room.
    Raises BadInput if the GPU has no room for one.
    """
    place = device_of(device)
    if not place.startswith("cuda"):
        return 1
    import torch

    from sae.stack import is_stacking_better

    shapes = [open_array(store / each.path / part).shape for each in embeddings for part in ("image", "text")]
    own = {name: value for name, value in setting.items() if name != "data_half"}
    share = (1 - heldout) * (0.5 if setting.get("data_half") else 1.0)
    rows, dim = round(share * sum(shape[0] for shape in shapes)), int(shapes[0][1])
    settings = resolved(Settings(**own), rows)
    most = min(seeds, at_once or seeds) if is_stacking_better(settings, torch.device(place)) else 1
    there = room_on(place)
    count = fitting(settings, rows, dim, most, there.free)
    needed = memory(settings, rows, dim, together=max(count, 1))
    width = setting["width"]
    saes = f"an SAE of width {width} on" if count < 2 else f"{count} SAEs of width {width}, trained together on"
    needs = "needs" if count < 2 else "need"
    what = (
        f"{saes} {rows} rows {needs} {needed.told()}; {place} has {there.free / 1e9:.1f} GB free of "
        f"{there.total / 1e9:.1f} GB"
    )
    if count < 1:
        raise BadInput(
            f"{what}: set a smaller batch_size or width, take fewer pairs, end what else runs on the GPU, or train "
            'with device = "cpu"'
        )
    log.info("%s%s", what, "" if count == seeds else f"; {seeds} SAEs are trained {count} at a time")
    return count
