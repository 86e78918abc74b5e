"""The model card of a published study, in Markdown. Every number is read from the catalog."""

from __future__ import annotations

import re
from typing import Any

import duckdb

from report import queries
from report.claims import HEAD, Claim, ask_claims, claims, tally
from report.figures.runs import Runs
from report.page import facts, in_study_order
from report.queries import ask
from report.tables import Table, table

WITH_ITEMS = "Thumbnails and captions are part of this publication, under the same licence."
WITHOUT_ITEMS = (
    "No image and no caption is part of this publication. Concepts are named with words that occur in two or more "
    "captions."
)
LIMITS = (
    "Compare each stability with `floor matched`, which random dictionaries of equal mean and covariance reach.",
    "A large raw bridge often only joins two energetic concepts; covariance and correlation are given for comparison.",
    "Names of concepts are automatic: words that distinguish their training captions, with a score on held-out items. "
    "They are not labels.",
    "Concepts describe one model on one set of pairs. Nothing here shows how they apply to others.",
)
DEMO = (
    "The demo's models are small encoders for clip-art-like images, trained on the pairs themselves: their results say "
    "nothing about CLIP or SigLIP."
)


def study_card(
    con: duckdb.DuckDBPyConnection, config: dict[str, Any], models: dict[str, dict[str, Any]], items: bool, demo: bool
) -> str:
    """The model card as Markdown: the study's data, models, settings, results, findings, limits, and use.

    con: a catalog; config: the study file as a dict; models: identity and preprocessing of each model; items: whether
    images and captions are published too; demo: whether one of the models is a demo model.
    """
    settings = ask(con, queries.SETTINGS)
    runs = in_study_order(settings, config)
    named = [setting["name"] for setting in config["saes"]]
    main = [run for run in runs if run[1] in named]
    split = settings.rows[0]["split"] if settings.rows else config["analyze"]["split"]
    answers = {
        "counts": ask(con, queries.COUNTS),
        "settings": settings,
        "reconstruction": ask(con, queries.RECONSTRUCTION),
        "stability": ask(con, queries.stability(main)),
    }
    tables = {name: table(name, answer, runs) for name, answer in answers.items() if answer.rows}
    licence = config["pairs"].get("licence")
    several = len({row["seed"] for row in answers["reconstruction"].rows}) > 1
    parts = [
        f"# Sparse autoencoders of the study {_plain(config['name'])}",
        f"Concepts of the joint image and text embeddings of {_listed([model for model, _ in main])}, trained and "
        "measured by bridgescope. The page `index.html` shows every concept and every bridge between the modalities; "
        "the tables behind it lie in `statistics/` as Parquet files.",
        "## Data",
        _lines([(fact.name, fact.value) for fact in facts(config)]),
        f"Licence of the pairs: {_plain(licence) if licence else 'the study states none; ask their provider'}. "
        + (WITH_ITEMS if items else WITHOUT_ITEMS),
        _shown(tables, "counts", "There are no images and no captions."),
        "## Models and preprocessing",
        *(f"### {_plain(name)}\n\n{_lines(sorted(model.items()))}" for name, model in models.items()),
        "Every embedding is divided by its norm before an SAE encodes it.",
        "## Settings",
        _shown(tables, "settings", "There is no SAE."),
        f"## Measured on the split {split}",
        _shown(tables, "reconstruction", "Nothing was measured."),
        "## Stability",
        _shown(tables if several else {}, "stability", "One seed: stability needs two."),
        "## Findings",
        _findings(con, main),
        "## Limits",
        _bullets(limits(config, split, demo)),
        "## Use",
        *(_use(run, answers["reconstruction"].of(model=run[0], sae=run[1])[0]["seed"]) for run in main[:1]),
    ]
    return "\n\n".join(parts) + "\n"


def limits(config: dict[str, Any], split: str, demo: bool) -> list[str]:
    """Limitations of the study's numbers, one sentence each."""
    heldout = config["pairs"]["heldout"]
    counted = f"Results are computed on the split {split}; {heldout:.0%} of the images were held out of training."
    return [counted, *LIMITS, *([DEMO] if demo else [])]


def _findings(con: duckdb.DuckDBPyConnection, main: Runs) -> str:
    answer = ask_claims(con)
    if not answer.rows:
        return "The study has none."
    parts = []
    for sae in dict.fromkeys(sae for _, sae in main):
        claims_of_sae: list[Claim] = claims(answer, main, sae)
        if claims_of_sae:
            rows = [
                [claim.text, line.model, line.figure, line.interval, line.null, line.bound, line.verdict]
                for claim in claims_of_sae
                for line in claim.models
            ]
            notes = [f"{claim.text}: {note}" for claim in claims_of_sae for note in claim.notes]
            parts += [
                f"SAE {_plain(sae)}: {tally(claims_of_sae)}",
                _grid(list(HEAD), rows),
                _bullets(list(map(_plain, notes))),
            ]
    return "\n\n".join(parts)


def _use(run: tuple[str, str], seed: int) -> str:
    model, sae = run
    return f"""```python
from sae.hub import from_hub

sae = from_hub("owner/name", sae="{model}/{sae}/{seed}")  # or the folder in place of owner/name
codes = sae.encode(embeddings)  # [N, concepts], sparse and not negative
rebuilt = sae.decode(codes)
```"""


def _shown(tables: dict[str, Table], name: str, otherwise: str) -> str:
    """The table of this name as Markdown. If the catalog has no rows for the table, the sentence `otherwise`."""
    return _table(tables[name]) if name in tables else otherwise


def _table(shown: Table) -> str:
    cells = [[cell.text for cell in row] for row in shown.rows]
    return f"{_grid([cell.text for cell in shown.head], cells)}\n\n{shown.caption}. {shown.note}".strip()


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
    """A value as one line of Markdown in which every special character is escaped."""
    text = re.sub(r"[^\S\u00a0\u202f]+", " ", str(value)).strip()  # no-break spaces are kept
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
