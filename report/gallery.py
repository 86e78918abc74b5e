"""Which figures a study has: asks for their rows, and leaves out those whose views or rows are missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb

from report import figure_queries, queries
from report.drawing import Drawn
from report.exhibits import Exhibit
from report.figures import bridges, frontier, modality, models, retrieval, stability, training
from report.figures.runs import Runs
from report.queries import ask, has_columns, holds
from report.sentences import Answers

FIGURES_INDEX = "figures.json"  # what each figure of the page is; of those that are files only, none
TITLES = {
    "models": "The models side by side",
    "modality": "Modality scores",
    "energy": "Energy of the most energetic concepts",
    "stability": "Stability of seeds",
    "diets": "Stability under other data",
    "retrieval": "Retrieval under interventions",
    "bridge-matrix": "Bridges of the concepts that have the largest",
    "alignment": "Alignment with the modality subspaces",
    "frontier": "R² against L0",
    "training": "Training",
}


def made_figures(con: duckdb.DuckDBPyConnection, answers: Answers, main: Runs, runs: Runs) -> dict[str, Drawn]:
    """Every figure of the page by name. main: the settings that the study file names, which all figures show; runs:
    its data diets too, which have one of their own.
    """
    first = [run for run in main if run[1] == main[0][1]]
    made: dict[str, Drawn | None] = {
        "models": models.side_by_side(ask(con, figure_queries.SIDE_BY_SIDE), main),
        "modality": modality.histograms(ask(con, queries.histograms(main)), main),
        "energy": models.concentration(ask(con, figure_queries.concentration(main)), main),
        "stability": stability.curves(answers.by_energy, main),
        "diets": stability.diets(ask(con, figure_queries.diets(main, runs)), runs),
        "retrieval": retrieval.interventions(answers.interventions, main),
        "matrix": _matrix(con, first),
        "alignment": _alignment(con, first),
        "frontier": frontier.r2_against_l0(answers.frontier, main),
    }
    if holds(con, "training"):
        made["training"] = training.curves(ask(con, queries.TRAINING), main)
    return {name: drawn for name, drawn in made.items() if drawn is not None}


def _alignment(con: duckdb.DuckDBPyConnection, runs: Runs) -> Drawn | None:
    found = [name for name in figure_queries.SUBSPACES if has_columns(con, "concepts", f"align_{name}")]
    if not found or not runs:
        return None
    answer = ask(con, figure_queries.alignments(runs[0][1], found))
    return modality.alignments(answer, ask(con, figure_queries.ALIGNMENT_NULLS), runs, figure_queries.MARKS)


def _matrix(con: duckdb.DuckDBPyConnection, runs: Runs) -> Drawn | None:
    answers = []
    for model, sae in runs:
        seed = queries.first_seed(con, model, sae)
        answers.append((model, ask(con, figure_queries.bridge_matrix(model, sae, seed))))
    return bridges.matrices(answers, runs[0][1], figure_queries.CELLS) if runs else None


def made_files(exhibits: list[Exhibit]) -> list[Drawn]:
    """Figures that are files only: the strongest bridges of the first setting, which the page shows as text."""
    found = (bridges.cards(shown) for shown in exhibits if shown.sae == exhibits[0].sae)
    return [drawn for drawn in found if drawn is not None]


def described(figures: Iterable[Drawn]) -> list[dict[str, Any]]:
    """What the files of these figures of the page are: id (their name), title, caption, sql."""
    return [
        {
            "id": drawn.name,
            "title": TITLES[drawn.name],
            "caption": drawn.caption,
            "sql": drawn.sql if isinstance(drawn.sql, str) else ";\n\n".join(drawn.sql),
        }
        for drawn in figures
    ]
