"""Frozen twins of an SAE setting: the same setting with a part that is never learned, which the key `nulls` adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

from tasks.settings import FROZEN, freezable

if TYPE_CHECKING:
    NullName = str
else:
    NullName = Literal[FROZEN]
Start = Literal["data", "random"]


class Twinned(Protocol):
    """What a setting must have for twins: the keys that are read here, and the method that changes keys."""

    @property
    def name(self) -> str:
        """The name of the setting."""

    @property
    def architecture(self) -> str:
        """The architecture of its SAEs."""

    @property
    def init(self) -> str:
        """Where its atoms start."""

    @property
    def frozen(self) -> str | None:
        """The part that is never learned, if any."""

    def twin(self, **changed: Any) -> Self:
        """This setting with changed keys, as a twin."""


Setting = TypeVar("Setting", bound=Twinned)


def twins_of(setting: Setting, kinds: list[NullName], starts: list[Start]) -> list[Setting]:
    """The settings NAME-KIND, and NAME-KIND-random with atoms that start in random directions.

    Their rows, budget, seeds and calibration are those of `setting`. Kinds that its architecture cannot have are left
    out. Where the atoms of `setting` start in random directions already, both starts are one. A setting that is frozen
    itself has no twins. Source: arXiv 2602.14111, whose frozen parts start at random.
    """
    if setting.frozen is not None:
        return []
    found = []
    for kind in (kind for kind in kinds if kind in freezable(setting.architecture)):
        if "data" in starts or setting.init == "random":
            found.append(setting.twin(name=f"{setting.name}-{kind}", frozen=kind))
        if "random" in starts and setting.init != "random":
            found.append(setting.twin(name=f"{setting.name}-{kind}-random", frozen=kind, init="random"))
    return found
