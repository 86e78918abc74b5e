"""The part of a stage that a run is narrowed to: one model, one SAE setting, one seed."""

from __future__ import annotations

from typing import NamedTuple

from flows.config import Study
from storage.errors import BadInput
from storage.runs import Key


class Narrow(NamedTuple):
    """The model, SAE setting and seed that a run of one stage is narrowed to. None stands for all of them."""

    model: str | None = None
    sae: str | None = None
    seed: int | None = None

    def includes(self, key: Key) -> bool:
        """Whether a job with this key is run. A part of the key that is None matches every model, SAE or seed."""
        own_seed = self.seed if key.other_seed is not None and self.seed == key.other_seed else key.seed
        return all(
            wanted is None or own is None or wanted == own
            for wanted, own in zip(self, (key.model, key.sae, own_seed), strict=True)
        )

    def check(self, study: Study) -> None:
        """Raise BadInput when the study has no such model, SAE or seed. The error lists the names that it has."""
        settings = [setting for setting in study.settings() if self.sae in (None, setting.name)]
        seeds = sorted({seed for setting in settings for seed in setting.seeds})
        known: dict[str, list[object]] = {
            "model": [model.name for model in study.models],
            "sae": [setting.name for setting in study.settings()],
            "seed": [*seeds],
        }
        for option, names in known.items():
            wanted = getattr(self, option)
            if wanted is not None and wanted not in names:
                raise BadInput(
                    f"--{option} {wanted}: no such {option} in study {study.name}. "
                    f"Available: {', '.join(map(str, names))}."
                )


WHOLE = Narrow()  #: the whole stage
