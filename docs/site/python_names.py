"""The page of the Python names that are kept stable, from their signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

INTRODUCTION = """# Python

`sae`, `vlm` and `storage` are plain Python, without an orchestrator, for notebooks and programs. These names are kept
stable. The page is generated from their docstrings; suffixes of names state shapes (B batch, C concepts, D dimension).
[A notebook](notebook.md) uses them on the demo.
"""
#: Public names by module, and the members of a class that are shown; None: a function.
NAMES: dict[str, dict[str, tuple[str, ...] | None]] = {
    "storage": {"open_catalog": None, "Dataset": (), "BadInput": ()},
    "storage.shift": {"concept_shift": None},
    "vlm": {"load": None, "Encoder": ("encode_images", "encode_texts"), "decode": None, "measure": None},
    "sae": {
        "SAE": ("encode", "decode", "save", "load"),
        "train": None,
        "Settings": (),
        "Trained": (),
        "Checkpoint": (),
    },
    "sae.metrics": {"Reconstruction": ("update", "result", "spread_about"), "combine": None},
    "sae.ledger": {"pair_ledger": None},
    "sae.what_if": {"without": None, "random_sets": None},
}


def page() -> str:
    """The page in Markdown. Raises AttributeError where a name does not exist."""
    parts = [INTRODUCTION]
    for module_name, names in NAMES.items():
        module = importlib.import_module(module_name)
        parts.append(f"## {module_name}\n\n{_words(inspect.getdoc(module) or '')}\n")
        for name, members in names.items():
            item = getattr(module, name)
            parts.append(_item(f"{module_name}.{name}", item))
            parts += [_item(f"{name}.{member}", getattr(item, member), "####") for member in members or ()]
    return "\n".join(parts)


def undocumented() -> list[str]:
    """Public names without a docstring."""
    found = []
    for module_name, names in NAMES.items():
        for name, members in names.items():
            item = getattr(importlib.import_module(module_name), name)
            found += [f"{module_name}.{name}"] if not inspect.getdoc(item) else []
            found += [f"{name}.{member}" for member in members or () if not inspect.getdoc(getattr(item, member))]
    return found


def _item(title: str, item: Any, level: str = "###") -> str:
    try:
        signature = re.sub(r"<class '([\w.]+)'>", r"\1", str(inspect.signature(item)))
    except (TypeError, ValueError):
        signature = ""
    if inspect.isclass(item) and len(signature) > 400:  # a model of many keys, which another page lists
        signature = "(...)"
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)  # annotations that are kept as text
    signature = re.sub(r"\b(?:collections\.abc|numpy|torch|pathlib|typing|duckdb)\.", "", signature)
    parts = _broken(title.rpartition(".")[2] + signature)
    return f"{level} {title}\n\n```python\n{parts}\n```\n\n{_words(inspect.getdoc(item) or '')}\n"


def _broken(signature: str) -> str:
    """A signature with one parameter per line where it is long."""
    if len(signature) <= 100:
        return signature
    depth, text = 0, ""
    for letter in signature:
        depth += (letter in "([{") - (letter in ")]}")
        text += letter
        if (letter == "(" and depth == 1) or (letter == "," and depth == 1):
            text += "\n    "
    return re.sub(r"\n\s+", "\n    ", text)


def _words(docstring: str) -> str:
    """A docstring as Markdown: signs of markup are escaped outside of code."""
    docstring = re.sub(r"^    (\w+): ", r"\n- `\1`: ", docstring, flags=re.MULTILINE)
    docstring = re.sub(r"^ {8}(?=\S)", "  ", docstring, flags=re.MULTILINE)
    pieces = re.split(r"(`[^`]*`)", docstring)
    return "".join(
        piece if place % 2 else re.sub(r"([*_<|\[\]])", r"\\\1", piece) for place, piece in enumerate(pieces)
    )
