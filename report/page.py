"""The page of a study: one self-contained HTML file, made from a catalog and the study's configuration."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import duckdb
import jinja2
from markupsafe import Markup

from report import figure_queries, queries, sentences, tables, wording
from report.claims import HEAD, ask_claims, claims, tally
from report.drawing import MARKS, Drawn, inline, write_files
from report.exhibits import Exhibit, exhibit
from report.figures.runs import Runs
from report.gallery import FIGURES_INDEX, described, figures_of_files, figures_of_page
from report.queries import Answer, ask, holds
from report.trainings import brief
from storage.documentation import header_of
from storage.query import views

EXPLORER = "explorer.html"  # links into the explorer lead to this page, which says how to open the explorer
CONTENTS = "<!-- contents -->"  # the template has it where the links to the sections go
FIRST_ROWS = 20  # number of rows in a plain table; the view may have more


class Fact(NamedTuple):
    """A setting or section of the study file: its name, and its values in words."""

    name: str
    value: str


def write_report(out: Path, con: duckdb.DuckDBPyConnection, config: dict[str, Any]) -> None:
    """Write the page `out/index.html`, the list `out/figures.json`, and each figure as SVG and PNG in `out/figures/`.

    Links from the page into the explorer lead to `out/explorer.html`, which says how to open it; `in_explorer` makes
    the page that the explorer has, whose links lead to its views.

    con: a catalog as `storage.open_catalog` returns it. config: the study file as a dict (name, pairs, models, saes,
    analyze). Equal catalogs and configurations give equal bytes. Sections whose views the catalog lacks are left out.
    `out` is created when missing. Raises duckdb.CatalogException when the catalog has no analysis.
    """
    page = contents(con, config)
    out.mkdir(parents=True, exist_ok=True)
    figures = [*page["figures"].values(), *figures_of_files(page["exhibits"])]
    for drawn in figures:
        write_files(out / "figures", drawn)
    index = json.dumps(described(page["figures"].values()), ensure_ascii=False, indent=1)
    (out / FIGURES_INDEX).write_text(index + "\n", encoding="utf-8")
    (out / EXPLORER).write_text(rendered(config, "explorer.html.j2"), encoding="utf-8")
    partial = out / "index.html.partial"
    partial.write_text(rendered(page), encoding="utf-8")
    os.replace(partial, out / "index.html")


def rendered(page: dict[str, Any], template: str = "template.html.j2") -> str:
    """The HTML of a page. page: the variables of its template; `contents` returns those of the study's page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # captions are untrusted text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": wording.number, "percent": wording.percent, "panels": panels, "tally": tally}
    environment.filters["file_name"] = file_name
    text = environment.get_template(template).render(marks=MARKS, EXPLORER=EXPLORER, **page).strip() + "\n"
    return text.replace(CONTENTS, with_contents(text), 1)


def file_name(caption: str) -> str:
    """A name for the file of a table, made of its caption."""
    return re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")


def in_explorer(text: str) -> str:
    """The study's page as the explorer has it, beside its own index.html. text: the HTML of the page."""
    return text.replace(f'href="{EXPLORER}#', 'href="index.html#')  # in captions, quotation marks are escaped


def with_contents(text: str) -> str:
    """The links to the sections of a page, as list items. Which sections a page has depends on the study."""
    sections = re.findall(r'<section id="([a-z-]+)">\n<h2>([^<]+)</h2>', text)
    return "\n".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in sections)


def panels(drawn: Drawn) -> list[tuple[Markup, str]]:
    """The panels of a figure as SVG elements, each with its text for screen readers."""
    return [(Markup(svg), panel.label) for svg, panel in zip(inline(drawn), drawn.panels, strict=True)]  # noqa: S704


def contents(con: duckdb.DuckDBPyConnection, config: dict[str, Any]) -> dict[str, Any]:
    """The variables of the template."""
    settings = ask(con, queries.SETTINGS)
    runs = in_study_order(settings, config)
    named = [entry["name"] for entry in config.get("saes", [])]
    # Data diets (a setting trained on other data) are shown in their own figure and in the tables only.
    main = [run for run in runs if run[1] in named] or runs
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
    findings = [(sae, sentences.findings(answers, [model for model, name in main if name == sae], sae)) for sae in saes]
    answer = ask_claims(con)
    exhibits = [exhibit(con, model, sae, sae == saes[0]) for sae in saes for model, name in main if name == sae]
    return {
        "name": config["name"],
        "facts": facts(config),
        "split": split,
        "models": models,
        "saes": saes,
        "claims": [(sae, claims_of_sae) for sae in saes if (claims_of_sae := claims(answer, main, sae))],
        "claims_head": HEAD,
        "claims_sql": answer.sql,
        "findings": findings,
        "findings_of_models": sentences.of_models(answers, models),
        "findings_sql": [answer.sql for answer in answers if answer.rows],
        "tables": tables_of_page(con, answers, main, runs),
        "figures": figures_of_page(con, answers, main, runs),
        "brief": brief(ask(con, queries.TRAINING), answers.reconstruction) if holds(con, "training") else None,
        "paged": paged_views(con),
        "exhibits": exhibits,
        "unscored": unscored(con),
        "to_paste": questions(exhibits),
    }


def in_study_order(settings: Answer, config: dict[str, Any]) -> Runs:
    """Every (model, sae) of the catalog, sorted by setting, then by model, both in the order of the study file."""
    order = {kind: [entry["name"] for entry in config.get(kind, [])] for kind in ("models", "saes")}

    def place(kind: str, name: str) -> tuple[int, str]:
        return (order[kind].index(name) if name in order[kind] else len(order[kind]), name)

    runs = dict.fromkeys((row["model"], row["sae"]) for row in settings.rows)
    return sorted(runs, key=lambda run: (place("saes", run[1]), place("models", run[0])))


def facts(config: dict[str, Any]) -> list[Fact]:
    """The study file in a few lines. An absolute path is shortened to its last part, because pages are published."""
    lines = [Fact("Pairs", _listed(config.get("pairs", {})))]
    for kind, key in (("Model", "models"), ("SAE", "saes")):
        for entry in config.get(key, []):
            lines.append(Fact(f"{kind} {entry['name']}", _listed({k: v for k, v in entry.items() if k != "name"})))
    for name, key in (("Data diets", "diets"), ("Frontier", "frontier")):
        section = config.get(key) or {}
        lines.append(Fact(name, _listed(section) if any(section.values()) else ""))
    for name, key in (("Sensitivity", "sensitivity"), ("Frozen nulls", "nulls")):
        lines.append(Fact(name, _shown(config.get(key) or [])))
    lines.append(Fact("Consensus SAEs", "yes" if config.get("consensus") else ""))
    lines.append(Fact("Analysis", _listed(config.get("analyze", {}))))
    return [fact for fact in lines if fact.value]


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


def tables_of_page(
    con: duckdb.DuckDBPyConnection, answers: sentences.Answers, main: Runs, runs: Runs
) -> dict[str, tables.Table]:
    """Every table of the page by name; tables without rows are left out."""
    shown = {
        "counts": ask(con, queries.COUNTS),
        "settings": answers.settings,
        "reconstruction": answers.reconstruction,
        "retrieval": answers.retrieval,
        "stability": ask(con, queries.stability(runs)),
        "sensitivity": ask(con, queries.sensitivity(main)),
        "frozen": ask(con, queries.frozen(main)),
        "totals": answers.totals,
    }
    if holds(con, "partners", "partner_floors"):
        shown["partners"] = ask(con, queries.partners(main))
    if holds(con, "correspondence", "correspondence_floors"):
        shown["correspondence"] = ask(con, queries.correspondence(list(dict.fromkeys(sae for _, sae in main))))
    if holds(con, "subspace_matches"):
        shown["subspace_stability"] = ask(con, queries.subspace_stability(main))
    if holds(con, "concept_labels"):
        shown["labels"] = ask(con, queries.label_figures(main))
        shown["bridge_precision"] = ask(con, queries.bridge_precision(main, queries.twins_of(con, main)))
    if holds(con, "probing"):
        shown["probing"] = ask(con, queries.probing(main))
    if holds(con, "concept_names"):
        shown["names"] = ask(con, queries.names(main))
    if holds(con, "consensus"):
        shown["consensus"] = ask(con, queries.CONSENSUS)
    if holds(con, "findings"):  # the analysis that writes findings also writes the nulls of bridges
        shown["bridge_figures"] = ask(con, queries.bridge_figures(main))
    if holds(con, "geometry"):
        shown["geometry"] = ask(con, queries.GEOMETRY)
    if holds(con, "ledger"):
        shown["dropped"] = ask(con, queries.DROPPED)
    return {name: tables.table(name, answer, runs) for name, answer in shown.items() if answer.rows}


def unscored(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The models whose encoder could not score any name."""
    if not holds(con, "concept_names"):
        return []
    answer = ask(con, "SELECT model FROM concept_names GROUP BY model HAVING NOT bool_or(is_scored) ORDER BY model")
    return [row["model"] for row in answer.rows]


def paged_views(con: duckdb.DuckDBPyConnection) -> list[tables.Table]:
    """The first rows of every view whose SQL header has a section Page. The section is the caption of the table."""
    shown = []
    for view in views(con):
        header = header_of(view)
        if "Page" in header:
            answer = ask(con, f'FROM "{view}" LIMIT {FIRST_ROWS}')
            shown.append(tables.plain_table(header["Page"], header["Purpose"], answer))
    return shown


def questions(exhibits: list[Exhibit]) -> list[tuple[str, str]]:
    """Example queries, as (title, SQL), about a concept that the page shows."""
    for shown in exhibits:
        concept = next((bridge.text.id for bridges in shown.lists for bridge in bridges.bridges), 0)
        return queries.to_paste(shown.model, shown.sae, shown.seed, concept)
    return []
