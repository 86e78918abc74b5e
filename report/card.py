"""The model card of a published study, in Markdown: every number is the catalog's."""

from __future__ import annotations

import re
from typing import Any

import duckdb

from report import queries
from report.claims import SQL as CLAIMS
from report.claims import Claim, claims, tally
from report.figures.runs import Runs
from report.page import facts, in_study_order
from report.queries import ask, holds
from report.tables import Table, table

CLAIM = ["claim", "model", "figure", "chance", "range", "verdict"]
WITH_ITEMS = "Thumbnails and captions are part of this publication and stand under it."
WITHOUT_ITEMS = (
    "No image and no caption is part of this publication. Words that stand in two captions or more name concepts."
)
LIMITS = (
    "A stability is worth what it stands above `floor matched`, which dictionaries of equal mean and covariance reach.",
    "A large raw bridge is often just two energetic concepts; covariance and correlation stand beside it.",
    "Names of concepts are automatic: the words that set their captions apart. They are no labels.",
    "Concepts describe one model on one set of pairs. Nothing here says how they carry over to others.",
)
DEMO = (
    "The demo's models are small encoders for clip-art-like images, made from the pairs themselves: they say nothing "
    "of CLIP or SigLIP."
)


def study_card(
    con: duckdb.DuckDBPyConnection, config: dict[str, Any], models: dict[str, dict[str, Any]], items: bool, demo: bool
) -> str:
    """What a study's SAEs are, how good they are, what was found, and what none of it says.

    con: a catalog; config: the study file as a dict; models: what is known of each model (identity, preprocessing);
    items: whether images and captions are published too; demo: whether one of the models is a demo model.
    """
    settings = ask(con, queries.SETTINGS)
    runs = in_study_order(settings, config)
    named = [setting["name"] for setting in config["saes"]]
    main = [run for run in runs if run[1] in named]
    split = settings.rows[0]["split"]
    shown = {
        "counts": ask(con, queries.COUNTS),
        "settings": settings,
        "reconstruction": ask(con, queries.RECONSTRUCTION),
        "stability": ask(con, queries.stability(main)),
    }
    made = {name: table(name, answer, runs) for name, answer in shown.items() if answer.rows}
    licence = config["pairs"].get("licence")
    several = len({seed["seed"] for seed in shown["reconstruction"].rows}) > 1
    parts = [
        f"# Sparse autoencoders of the study {_plain(config['name'])}",
        f"Concepts of the joint image and text embeddings of {_listed([model for model, _ in main])}, trained and "
        "measured by bridgescope. The page `index.html` shows every concept and every bridge between the modalities; "
        "the tables behind it lie in `statistics/` as Parquet files.",
        "## Data",
        _lines([(fact.name, fact.value) for fact in facts(config)]),
        f"Licence of the pairs: {_plain(licence) if licence else 'the study states none; ask whoever they come from'}. "
        + (WITH_ITEMS if items else WITHOUT_ITEMS),
        _table(made["counts"]),
        "## Models and preprocessing",
        *(f"### {_plain(name)}\n\n{_lines(sorted(known.items()))}" for name, known in models.items()),
        "Every embedding is divided by its norm before an SAE sees it.",
        "## Settings",
        _table(made["settings"]),
        f"## Measured on the split {split}",
        _table(made["reconstruction"]),
        "## Stability",
        _table(made["stability"]) if several and "stability" in made else "One seed: stability needs two.",
        "## Findings",
        _findings(con, main),
        "## Limits",
        _bullets(limits(config, split, demo)),
        "## Use",
        _use(main[0], shown["reconstruction"].of(model=main[0][0], sae=main[0][1])[0]["seed"]),
    ]
    return "\n\n".join(parts) + "\n"


def limits(config: dict[str, Any], split: str, demo: bool) -> list[str]:
    """What the figures do not say."""
    heldout = config["pairs"]["heldout"]
    counted = f"Figures count the split {split}; {heldout:.0%} of the images were held out of training."
    return [counted, *LIMITS, *([DEMO] if demo else [])]


def _findings(con: duckdb.DuckDBPyConnection, main: Runs) -> str:
    if not holds(con, "findings"):
        return "The study made none."
    answer = ask(con, CLAIMS)
    parts = []
    for sae in dict.fromkeys(sae for _, sae in main):
        found: list[Claim] = claims(answer, main, sae)
        if found:
            rows = [
                [claim.text, of.model, of.figure, of.null, of.interval, of.verdict]
                for claim in found
                for of in claim.models
            ]
            parts += [f"SAE {_plain(sae)}: {tally(found)}", _grid(CLAIM, rows)]
    return "\n\n".join(parts)


def _use(run: tuple[str, str], seed: int) -> str:
    model, sae = run
    return f"""```python
from sae.hub import from_hub

sae = from_hub("owner/name", sae="{model}/{sae}/{seed}")  # or the folder in place of owner/name
codes = sae.encode(embeddings)  # [N, concepts], sparse and not negative
rebuilt = sae.decode(codes)
```"""


def _table(made: Table) -> str:
    cells = [[cell.text for cell in row] for row in made.rows]
    return f"{_grid([cell.text for cell in made.head], cells)}\n\n{made.caption}. {made.note}".strip()


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines(named: list[tuple[str, Any]]) -> str:
    return _bullets([f"{_plain(name)}: {_plain(value)}" for name, value in named])


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _listed(names: list[str]) -> str:
    return ", ".join(_plain(name) for name in dict.fromkeys(names))


def _plain(value: Any) -> str:
    """A value as text that Markdown takes for nothing else, on one line."""
    text = re.sub(r"[^\S\u00a0\u202f]+", " ", str(value)).strip()  # spaces that do not break stay
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
