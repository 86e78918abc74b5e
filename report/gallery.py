"""Queries the rows of every figure of a study and makes the figures.

A figure is left out when the catalog lacks its views or has no rows for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb

from report import figure_queries, queries
from report.drawing import Drawn
from report.exhibits import Exhibit
from report.figures import bridges, frontier, modality, models, probing, retrieval, sensitivity, stability, training
from report.figures.runs import Runs
from report.queries import ask, has_columns, holds
from report.sentences import Answers

FIGURES_INDEX = "figures.json"  # title, caption and SQL of each figure of the page
TITLES = {
    "models": "The models side by side",
    "modality": "Modality scores",
    "energy": "Energy of the most energetic concepts",
    "stability": "Stability of seeds",
    "diets": "Stability under other data",
    "sensitivity": "Sensitivity to settings",
    "retrieval": "Retrieval under interventions",
    "bridge-matrix": "Concepts with the largest bridges",
    "alignment": "Alignment with the modality subspaces",
    "frontier": "R² against L0",
    "probing": "Labels from a few concepts",
    "training": "Training",
}


def figures_of_page(con: duckdb.DuckDBPyConnection, answers: Answers, main: Runs, runs: Runs) -> dict[str, Drawn]:
    """Every figure of the page by name.

    main: (model, SAE setting) for the settings in the study file; all figures show them. runs: `main` and its data
    diets, which are the same settings trained on other data; only the figure `diets` shows them.
    """
    first = [run for run in main if run[1] == main[0][1]]
    figures: dict[str, Drawn | None] = {
        "models": models.side_by_side(ask(con, figure_queries.SIDE_BY_SIDE), main),
        "modality": modality.histograms(ask(con, queries.histograms(main)), main),
        "energy": models.concentration(ask(con, figure_queries.concentration(main)), main),
        "stability": stability.curves(answers.by_energy, main),
        "diets": stability.diets(ask(con, figure_queries.diets(main, runs)), runs),
        "sensitivity": sensitivity.moves(ask(con, figure_queries.sensitivity(main)), main),
        "retrieval": retrieval.interventions(answers.interventions, main),
        "matrix": _matrix(con, first),
        "alignment": _alignment(con, first),
        "frontier": frontier.r2_against_l0(answers.frontier, main),
    }
    if holds(con, "probing"):
        figures["probing"] = probing.curves(ask(con, queries.probing(main)), main)
    if holds(con, "training"):
        figures["training"] = training.curves(ask(con, queries.TRAINING), main)
    return {name: drawn for name, drawn in figures.items() if drawn is not None}


def _alignment(con: duckdb.DuckDBPyConnection, runs: Runs) -> Drawn | None:
    subspaces = [name for name in figure_queries.SUBSPACES if has_columns(con, "concepts", f"align_{name}")]
    if not subspaces or not runs:
        return None
    answer = ask(con, figure_queries.alignments(runs[0][1], subspaces))
    return modality.alignments(answer, ask(con, figure_queries.ALIGNMENT_NULLS), runs, figure_queries.MARKS)


def _matrix(con: duckdb.DuckDBPyConnection, runs: Runs) -> Drawn | None:
    answers = []
    for model, sae in runs:
        seed = queries.first_seed(con, model, sae)
        answers.append((model, ask(con, figure_queries.bridge_matrix(model, sae, seed))))
    return bridges.matrices(answers, runs[0][1], figure_queries.CELLS) if runs else None


def figures_of_files(exhibits: list[Exhibit]) -> list[Drawn]:
    """Figures that exist only as files: the strongest bridges of the first setting, which the page shows as cards."""
    cards = (bridges.cards(exhibit) for exhibit in exhibits if exhibit.sae == exhibits[0].sae)
    return [drawn for drawn in cards if drawn is not None]


def described(figures: Iterable[Drawn]) -> list[dict[str, Any]]:
    """The rows of figures.json: id (the stem of the figure's files), title, caption and SQL of each figure."""
    return [
        {
            "id": drawn.name,
            "title": TITLES[drawn.name],
            "caption": drawn.caption,
            "sql": drawn.sql if isinstance(drawn.sql, str) else ";\n\n".join(drawn.sql),
        }
        for drawn in figures
    ]
