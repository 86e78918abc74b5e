"""The page of a study: one HTML file that asks nothing of anyone, made from a catalog and the study's configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import duckdb
import jinja2
from markupsafe import Markup

from report import figure_queries, queries, sentences, tables
from report.claims import SQL as CLAIMS
from report.claims import claims, tally
from report.drawing import MARKS, Drawn, inline, write_files
from report.exhibits import Exhibit, exhibit
from report.figures.runs import Runs
from report.gallery import FIGURES_INDEX, described, made_figures, made_files
from report.queries import Answer, ask, holds
from storage.documentation import header_of
from storage.query import views

FIRST_ROWS = 20  # of a view that is shown as a plain table


class Fact(NamedTuple):
    """A line of the study file, in words."""

    name: str
    value: str


def write_report(out: Path, con: duckdb.DuckDBPyConnection, config: dict[str, Any]) -> None:
    """Write `out/index.html`, the page of a study, its figures as SVG and PNG files in `out/figures/`, and their list.

    con: a catalog as `storage.open_catalog` gives it. config: the study file as a dict (name, pairs, models, saes,
    analyze). Equal catalogs and configurations give equal bytes. Views that the catalog lacks are left out.
    `out` is made when missing. Raises duckdb.CatalogException when the catalog has not been analyzed.
    """
    made = contents(con, config)
    out.mkdir(parents=True, exist_ok=True)
    figures = [*made["figures"].values(), *made_files(made["exhibits"])]
    for drawn in figures:
        write_files(out / "figures", drawn)
    index = json.dumps(described(made["figures"].values()), ensure_ascii=False, indent=1)
    (out / FIGURES_INDEX).write_text(index + "\n", encoding="utf-8")
    partial = out / "index.html.partial"
    partial.write_text(rendered(made), encoding="utf-8")
    os.replace(partial, out / "index.html")


def rendered(made: dict[str, Any]) -> str:
    """The page, from its contents."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # captions are anybody's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": sentences.number, "percent": sentences.percent, "panels": panels, "tally": tally}
    return environment.get_template("template.html.j2").render(marks=MARKS, **made).strip() + "\n"


def panels(drawn: Drawn) -> list[tuple[Markup, str]]:
    """The panels of a figure, as SVG elements, each with what a reader who does not see it is told."""
    return [(Markup(svg), panel.label) for svg, panel in zip(inline(drawn), drawn.panels, strict=True)]  # noqa: S704


def contents(con: duckdb.DuckDBPyConnection, config: dict[str, Any]) -> dict[str, Any]:
    """Everything the template shows."""
    settings = ask(con, queries.SETTINGS)
    runs = in_study_order(settings, config)
    named = [entry["name"] for entry in config.get("saes", [])]
    main = [run for run in runs if run[1] in named] or runs  # data diets have a figure and their rows in the tables
    saes = list(dict.fromkeys(sae for _, sae in main))
    models = list(dict.fromkeys(model for model, _ in runs))
    split = settings.rows[0]["split"] if settings.rows else "heldout"
    answers = sentences.Answers(
        reconstruction=ask(con, queries.RECONSTRUCTION),
        settings=settings,
        modality=ask(con, queries.MODALITY_SHARES),
        by_energy=ask(con, queries.stability_by_energy(main)),
        totals=ask(con, queries.BRIDGE_TOTALS),
        retrieval=ask(con, queries.RETRIEVAL),
        interventions=ask(con, figure_queries.RETRIEVAL),
        frontier=ask(con, figure_queries.FRONTIER) if holds(con, "frontier") else Answer("", [], []),
    )
    said = [(sae, sentences.findings(answers, [model for model, name in main if name == sae], sae)) for sae in saes]
    answer = ask(con, CLAIMS) if holds(con, "findings") else Answer(CLAIMS, [], [])
    exhibits = [exhibit(con, model, sae, sae == saes[0]) for sae in saes for model, name in main if name == sae]
    return {
        "name": config["name"],
        "facts": facts(config),
        "split": split,
        "models": models,
        "saes": saes,
        "claims": [(sae, found) for sae in saes if (found := claims(answer, main, sae))],
        "claims_sql": answer.sql,
        "findings": said,
        "findings_of_models": sentences.of_models(answers, models),
        "findings_sql": [answer.sql for answer in answers if answer.rows],
        "tables": made_tables(con, answers, main, runs),
        "figures": made_figures(con, answers, main, runs),
        "paged": paged_views(con),
        "exhibits": exhibits,
        "to_paste": questions(exhibits),
    }


def in_study_order(settings: Answer, config: dict[str, Any]) -> Runs:
    """Every (model, sae) of the catalog, settings and models in the order of the study file."""
    order = {kind: [entry["name"] for entry in config.get(kind, [])] for kind in ("models", "saes")}

    def place(kind: str, name: str) -> tuple[int, str]:
        return (order[kind].index(name) if name in order[kind] else len(order[kind]), name)

    found = dict.fromkeys((row["model"], row["sae"]) for row in settings.rows)
    return sorted(found, key=lambda run: (place("saes", run[1]), place("models", run[0])))


def facts(config: dict[str, Any]) -> list[Fact]:
    """The study file in a few lines. Folders are named by their last part: a page travels, a path does not."""
    made = [Fact("Pairs", _listed(config.get("pairs", {})))]
    for kind, key in (("Model", "models"), ("SAE", "saes")):
        for entry in config.get(key, []):
            made.append(Fact(f"{kind} {entry['name']}", _listed({k: v for k, v in entry.items() if k != "name"})))
    for name, key in (("Data diets", "diets"), ("Frontier", "frontier")):
        section = config.get(key) or {}
        made.append(Fact(name, _listed(section) if any(section.values()) else ""))
    made.append(Fact("Analysis", _listed(config.get("analyze", {}))))
    return [fact for fact in made if fact.value]


def _listed(section: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in section.items() if value is not None)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    kind, colon, rest = text.rpartition(":")
    return f"{kind}{colon}{PurePath(rest).name}" if PurePath(rest).is_absolute() else text


def made_tables(
    con: duckdb.DuckDBPyConnection, answers: sentences.Answers, main: Runs, runs: Runs
) -> dict[str, tables.Table]:
    """Every table of the page by name; those that the study gives no rows for are missing."""
    found = {
        "counts": ask(con, queries.COUNTS),
        "settings": answers.settings,
        "reconstruction": answers.reconstruction,
        "retrieval": answers.retrieval,
        "stability": ask(con, queries.stability(runs)),
        "totals": answers.totals,
    }
    if holds(con, "findings"):  # made by the same analysis as the nulls of bridges
        found["bridge_figures"] = ask(con, queries.bridge_figures(main))
    if holds(con, "geometry"):
        found["geometry"] = ask(con, queries.GEOMETRY)
    if holds(con, "ledger"):
        found["dropped"] = ask(con, queries.DROPPED)
    return {name: tables.table(name, answer, runs) for name, answer in found.items() if answer.rows}


def paged_views(con: duckdb.DuckDBPyConnection) -> list[tables.Table]:
    """The first rows of every view whose header has a section Page, which is the title of its table."""
    shown = []
    for view in views(con):
        header = header_of(view)
        if "Page" in header:
            answer = ask(con, f'FROM "{view}" LIMIT {FIRST_ROWS}')
            shown.append(tables.plain_table(header["Page"], header["Purpose"], answer))
    return shown


def questions(exhibits: list[Exhibit]) -> list[tuple[str, str]]:
    """SQL to begin with, about a concept that the page shows."""
    for shown in exhibits:
        concept = next((bridge.text.id for found in shown.lists for bridge in found.bridges), 0)
        return queries.to_paste(shown.model, shown.sae, shown.seed, concept)
    return []
