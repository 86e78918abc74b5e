"""All sources by name: every module of this package that declares a section [pairs] with a `source`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args

from pydantic import Field

from storage import sources
from storage.errors import BadInput
from storage.sources import Source
from storage.sources.section import PairsSection


def _sections() -> dict[str, type[PairsSection]]:
    """{name: section} of the package's modules, in the order of their file names."""
    sections = {}
    for entry in pkgutil.iter_modules(sources.__path__):
        module = importlib.import_module(f"{sources.__name__}.{entry.name}")
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and issubclass(value, PairsSection) and "source" in value.model_fields:
                (name,) = get_args(value.model_fields["source"].annotation)
                sections[name] = value
    return sections


SECTIONS = _sections()
if TYPE_CHECKING:
    AnyPairs = PairsSection
else:  # the type of the key `pairs` in a study file
    AnyPairs = Annotated[Union[*SECTIONS.values()], Field(discriminator="source")]


def open_source(section: dict[str, Any], store: Path) -> Source:
    """The source that a section names, as `source_of` gives it. Lists nothing yet. Raises BadInput for one that is
    not known."""
    name = section["source"]
    if name not in SECTIONS:
        raise BadInput(f"pairs.source = {name!r}: sources are {', '.join(SECTIONS)}")
    return SECTIONS[name].model_validate(section).open(store)


def located(section: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A section as it stands in the file, with `change` made of every path of this machine. URLs and names of the hub
    stay as they are; what is no string is left for the validation to refuse."""
    source = section.get("source")
    changed = dict(section)
    if not isinstance(source, str) or source not in SECTIONS:
        return changed
    kind = SECTIONS[source]
    for key in kind.paths:
        value = section.get(key)
        if isinstance(value, list):
            changed[key] = [change(one) if kind.is_path(one) else one for one in value]
        elif kind.is_path(value):
            changed[key] = change(value)
    return changed
