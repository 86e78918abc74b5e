"""All sources by name, collected from the sections [pairs] that the modules of this package define."""

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
    """Return {name of a source: its section} from all modules of the package, in the order of their file names."""
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
    """Open the source that a section describes, without listing its items. Raises BadInput for an unknown source.

    `section` holds the keys that `storage.sources.section.source_of` returns.
    """
    name = section["source"]
    if name not in SECTIONS:
        raise BadInput(f"pairs.source = {name!r}: sources are {', '.join(SECTIONS)}")
    return SECTIONS[name].model_validate(section).open(store)


def located(section: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return a section of a study file with `change` applied to every local path.

    URLs and names on the Hugging Face hub stay as they are. Values that are not strings stay too; the validation of the
    section refuses them later.
    """
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
