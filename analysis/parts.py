"""The parts in which a study is analysed, and the declarations of the statistics.

The code that lists jobs uses this module, so this module imports nothing that takes long to load: it reads each
declaration from the source of a statistic, without importing the statistic. It computes nothing.
"""

from __future__ import annotations

import ast
import functools
import itertools
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import analysis
from storage import syntax

SAEName = tuple[str, int]  #: name of the setting, and seed


class Part(NamedTuple):
    """One sort of part. A part is a cached task that computes every statistic with the same `per` as the part."""

    #: The subject of one part: a model; an SAE ('sae', or 'names' for what needs the model's encoder); a pair of seeds,
    #: of which only dictionaries are read ('pair') or also the codes ('seeds'); the SAEs of one setting and seed in all
    #: models; or the whole study.
    per: str
    kind: str  #: kind of the dataset that the part makes
    reads: tuple[str, ...] = ()  #: the sorts of parts whose tables the statistics of this part may need


#: The sorts of parts, in the order in which they are computed. The part of the study joins the tables of the others.
PARTS = {
    part.per: part
    for part in (
        Part("model", "space"),
        Part("sae", "measures", reads=("model",)),
        Part("names", "names", reads=("sae",)),
        Part("pair", "matching"),
        Part("seeds", "partners"),
        Part("models", "correspondence"),
        Part("study", "analyze", reads=("model", "sae", "names", "pair", "seeds", "models")),
    )
}


class Declared(NamedTuple):
    """The part of a statistic's declaration that the code that lists jobs needs."""

    name: str
    version: str
    per: str = "sae"


def declared() -> list[Declared]:
    """The declarations of all statistics, in the order of their modules, read from the source of the modules.

    Raises ValueError where name, version or per is not a literal, or per is not a key of PARTS. The message names the
    file.
    """
    found = []
    for finder, name, _ in pkgutil.iter_modules(analysis.__path__):
        text = (Path(finder.path) / f"{name}.py").read_text()  # type: ignore[union-attr]
        _, assigned, call = text.partition("\nSTATISTIC = ")
        if assigned:
            found.append(_read(f"analysis/{name}.py", call))
    return found


@functools.cache  # each list of jobs asks for all declarations, once per sort of part
def _read(file: str, source: str) -> Declared:
    """Read one declaration. source: the text of the file from the call of `Statistic` on."""
    try:
        call = syntax.parse(source).body[0].value  # type: ignore[attr-defined]
        given = dict(zip(Declared._fields, call.args[:2], strict=False))
        given |= {word.arg: word.value for word in call.keywords if word.arg in Declared._fields}
        statistic = Declared(**{name: ast.literal_eval(value) for name, value in given.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: name, version and per of a statistic must be literals: {error}") from error
    if statistic.per not in PARTS:
        raise ValueError(f"{file}: a statistic is computed per {', '.join(PARTS)}, not per {statistic.per!r}")
    return statistic


def versions(per: str | None = None) -> dict[str, str]:
    """{name: version} of the statistics of one part, or of all parts. The recipe of a part includes these versions."""
    return {statistic.name: statistic.version for statistic in declared() if per in (None, statistic.per)}


def pairs_of_seeds(saes: Iterable[SAEName]) -> dict[tuple[int, int], list[tuple[SAEName, SAEName]]]:
    """{(lower seed, higher seed): pairs of SAEs to match with each other}.

    saes: the SAEs of a setting and of its data diets, which train the same setting on other data. A new seed adds keys
    and leaves the other keys unchanged. The two seeds of a key are equal for two SAEs that have the same seed and
    different diets.
    """
    groups: dict[tuple[int, int], list[tuple[SAEName, SAEName]]] = {}
    for a, b in itertools.combinations(sorted(saes), 2):
        low, high = sorted((a[1], b[1]))
        groups.setdefault((low, high), []).append((a, b))
    return groups
