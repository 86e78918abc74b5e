"""The panels of a figure: one per model and SAE setting, with equal axes within a figure."""

from __future__ import annotations

from collections.abc import Iterator

Runs = list[tuple[str, str]]  # (model, sae), in the order of the page


def columns_for(runs: Runs) -> int:
    """Panels per row: the models of one setting side by side, or the settings of a single model."""
    models = len({model for model, _ in runs})
    return 2 if models in (2, 4) else min(3, models if models > 1 else len(runs))


def titled(runs: Runs) -> Iterator[tuple[str, str, str]]:
    """Model, setting and title of every panel; the title names the setting only where there are several."""
    several = len({sae for _, sae in runs}) > 1
    for model, sae in runs:
        yield model, sae, f"{model}, {sae}" if several else model


def models_of(runs: Runs) -> list[str]:
    """The models, each once, in the order of the page."""
    return list(dict.fromkeys(model for model, _ in runs))
