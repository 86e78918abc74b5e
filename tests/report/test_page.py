"""The page is complete, safe, self-contained and deterministic."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pytest
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from report import write_report
from report.drawing import IMAGE, TEXT, VARIABLES
from report.figures.frontier import r2_against_l0
from report.page import EXPLORER, contents, in_explorer, rendered
from report.pictures import thumbnail
from report.queries import Answer
from storage.statements import SQL

Make = Callable[..., Any]
ALWAYS = {"modality", "energy", "stability", "training", "bridge-matrix"}


class ParsedPage(HTMLParser):
    """A parsed page: tags with attributes, text, ids, and the SQL of every figure and table."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.statements: list[str] = []
        self.without_sql: list[str] = []  # figures and tables without an SQL statement in their block
        self.blocks: list[tuple[int, int]] = []  # for each open block: (depth, statements before it)
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.VOID:
            return
        self.open.append(tag)
        if tag == "figure" or "exhibit" in (dict(attrs).get("class") or "").split():
            self.blocks.append((len(self.open), len(self.statements)))
        if tag == "code" and "details" in self.open:
            self.statements.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.blocks and self.blocks[-1][0] == len(self.open) and self.blocks.pop()[1] == len(self.statements):
            self.without_sql.append(tag)
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "code" and "details" in self.open:
            self.statements[-1] += data


def figures(parsed: ParsedPage) -> set[str]:
    """Names of the figures of a page."""
    return {str(attributes["id"]).removeprefix("figure-") for tag, attributes in parsed.tags if tag == "figure"}


@pytest.fixture(scope="module")
def con(catalog: Make) -> duckdb.DuckDBPyConnection:
    return catalog(whole=True)


@pytest.fixture(scope="module")
def page(con: duckdb.DuckDBPyConnection, config: Make) -> str:
    return rendered(contents(con, config()))


@pytest.fixture(scope="module")
def folder(catalog: Make, config: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(out, catalog(models=("one",), whole=True), config(models=("one",)))
    return out


def test_page_asks_nothing_of_anyone(page: str) -> None:
    addresses = [
        (tag, value or "")
        for tag, attributes in ParsedPage(page).tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster")
    ]
    assert addresses
    followed = re.compile(rf"{re.escape(EXPLORER)}#/.*|figures/[a-z-]+\.(svg|png)")  # read when a link is clicked
    for tag, value in addresses:
        assert value.startswith(("data:", "#")) or (tag == "a" and followed.fullmatch(value)), (tag, value)
    assert re.findall(r"https?://(?!www\.w3\.org/)", page) == []
    assert "<script" not in page
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_every_figure_and_every_table_is_a_file_too(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    links = [attributes for tag, attributes in ParsedPage(page).tags if tag == "a" and "download" in attributes]
    figures = {link["href"] for link in links if not str(link["href"]).startswith("data:")}
    drawn = re.findall(r'<figure id="figure-([\w-]+)"', page)
    assert figures == {f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    assert all((folder / str(name)).is_file() for name in figures)
    tables = {str(link["download"]): str(link["href"]) for link in links if link["href"] not in figures}
    assert len(tables) == page.count("Table: ")
    (stability,) = [href for name, href in tables.items() if name.startswith("stability")]
    kind, _, text = stability.partition(",")
    assert kind == "data:text/csv;charset=utf-8"
    head, first, *_ = csv.reader(io.StringIO(unquote(text)))
    assert head[:2] == ["SAE", "model"]
    assert first[:2] == ["main", "one"]
    assert len(first) == len(head)


def test_bridges_lead_to_their_concepts_in_the_explorer(
    page: str, folder: Path, con: duckdb.DuckDBPyConnection
) -> None:
    links = re.findall(rf'href="{EXPLORER}#/concept/(\d+)\?run=([^"]*)"', page)
    known = {
        (str(concept), f"{model}/{sae}/{seed}")
        for concept, model, sae, seed in con.execute("SELECT concept_id, model, sae, seed FROM concepts").fetchall()
    }
    assert links
    assert set(links) <= known
    assert (folder / EXPLORER).read_text().count("<code>bridgescope explore") == 1  # where a file's links lead
    moved = in_explorer(page)
    assert f'"{EXPLORER}#' not in moved
    assert re.findall(r'href="index.html#/concept/(\d+)\?run=([^"]*)"', moved) == links


def test_a_caption_is_never_taken_for_a_link_into_the_explorer() -> None:
    said = str(escape(f'<a href="{EXPLORER}#/x">'))
    assert in_explorer(said) == said


def test_captions_are_text_never_markup(page: str) -> None:
    assert "<script>alert(1)" not in page
    parsed = ParsedPage(page)
    assert "<script>alert(1)</script> & \"quotes\" 'single'" in parsed.text
    alternatives = [attributes.get("alt") for tag, attributes in parsed.tags if tag == "img"]
    assert "<script>alert(1)</script> & \"quotes\" 'single'" in alternatives


def test_labels_stand_beside_chance_and_baselines(page: str) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    # The seeds have a mean AUC of .9 and .8, permuted labels one of .5.
    assert "main one group 3 0.850 0.800 0.900 0.500 0.500 100 %" in text
    # All stored bridges but that of concept 0 with itself join two concepts of one label; at random, each of seven
    # image concepts has the label of one of seven text concepts.
    assert "main one group bridge 7 100 % 100 % 100 % 14 % 100 %" in text
    assert "main one image group 1 1 0.700 0.700 0.700 0.600 0.650 0.800 0.850" in text


def test_every_figure_and_table_has_sql_that_runs(page: str, con: duckdb.DuckDBPyConnection) -> None:
    parsed = ParsedPage(page)
    assert parsed.without_sql == []
    assert figures(parsed) == {*ALWAYS, "models", "diets", "retrieval", "alignment", "frontier", "probing"}
    for statement in parsed.statements:
        con.execute(statement)
    shown = [tag for tag, attributes in parsed.tags if attributes.get("role") == "img"]
    # Six figures have one panel for each of the 2 models. Two figures (models side by side, energy) have one panel.
    # The bridge matrix has 4 panels, one per model and score. Two figures have 8: the alignment one per model and
    # subspace, the frontier one per model, modality and kind of encoder.
    assert len(shown) == 6 * 2 + 2 * 1 + 1 * 4 + 2 * 8


def test_questions_to_paste_run(page: str, con: duckdb.DuckDBPyConnection) -> None:
    asking = page[page.index("<h2>Asking more") :]
    statements = re.findall(r"<pre><code>(.*?)</code></pre>", asking, re.S)
    assert len(statements) == 3
    for statement in statements:
        con.execute(statement.replace("&#39;", "'").replace("&gt;", ">").replace("&lt;", "<").replace("&#34;", '"'))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_equal_input_gives_equal_bytes(
    folder: Path, catalog: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")  # matplotlib writes this date, or today, into its files
    write_report(tmp_path, catalog(models=("one",), whole=True), config(models=("one",)))
    assert files(tmp_path) == files(folder)


def test_every_figure_is_there_as_svg_and_png_in_plain_colours(folder: Path) -> None:
    names = {path.stem for path in (folder / "figures").iterdir()}
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert names == figures(ParsedPage(page)) | {"bridges-one"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{n}.{kind}" for n in names for kind in ("svg", "png")
    }
    for name in names:
        svg = ElementTree.parse(folder / "figures" / f"{name}.svg").getroot()
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in ElementTree.tostring(svg, encoding="unicode")
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
            assert not {"Software", "Creation Time"} & set(picture.info)


def test_page_names_no_folder(page: str) -> None:
    assert "/somewhere" not in page
    assert "embeddings:vectors" in page


def test_headings_descend_one_step_at_a_time_and_ids_are_unique(page: str) -> None:
    parsed = ParsedPage(page)
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    tables = [i for i, (tag, _) in enumerate(parsed.tags) if tag == "table"]
    assert all(parsed.tags[i + 1][0] == "caption" for i in tables)


def test_self_bridges_are_labelled_as_one_concept(page: str) -> None:
    assert page.count("<em>the same concept</em>") == 2  # concept 0 is in one of the two lists of both models


def test_one_seed_says_that_stability_needs_two(catalog: Make, config: Make) -> None:
    page = rendered(contents(catalog(models=("one",), seeds=1), config(models=("one",))))
    assert "stability needs two" in page
    assert "Stability of every pair of seeds" not in page
    assert "floor_matched" in page  # the floors are still drawn


def test_vectors_without_pictures_show_keys_and_captions(catalog: Make, config: Make) -> None:
    con = catalog(models=("one",), pictures=False)
    con.execute("DROP TABLE ledger")
    parsed = ParsedPage(rendered(contents(con, config(models=("one",)))))
    assert "img" not in [tag for tag, _ in parsed.tags]
    assert re.search(r"key\d+ caption \d+", parsed.text)
    assert "Nothing was dropped" in parsed.text


def test_several_settings_are_all_there(catalog: Make, config: Make) -> None:
    saes = ("wide", "main")
    parsed = ParsedPage(rendered(contents(catalog(saes=saes), config(saes=saes))))
    panels = [attributes["aria-label"] for _, attributes in parsed.tags if attributes.get("role") == "img"]
    # Three figures have a panel for each of 2 models and 2 settings (12). The energy has a panel per setting (2), the
    # models side by side have one panel (1). The bridge matrix has 2 panels per model, for the first setting only (4).
    assert len(panels) == 12 + 2 + 1 + 4
    assert str(panels[0]).startswith("one, wide: ")  # settings are in the order of the study file
    assert parsed.without_sql == []


def test_a_catalog_without_bridges_still_makes_a_page(catalog: Make, config: Make) -> None:
    con = catalog(models=("one",), seeds=1)
    con.execute("DELETE FROM bridges; DELETE FROM bridge_totals; DELETE FROM retrieval")
    page = rendered(contents(con, config(models=("one",))))
    assert "No bridge has enough pairs" in page
    assert figures(ParsedPage(page)) == ALWAYS - {"bridge-matrix"}


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ("DROP TABLE frontier", "frontier"),
        ("DELETE FROM frontier", "frontier"),
        ("ALTER TABLE concepts DROP align_lda", None),
        (
            "UPDATE concepts SET align_mean_gap = NULL, align_logistic = NULL, align_lda = NULL, align_inlp = NULL",
            "alignment",
        ),
        ("DELETE FROM retrieval WHERE sae IS NOT NULL", "retrieval"),
        ("DELETE FROM retrieval", "retrieval"),
        ("DELETE FROM matches WHERE sae_a <> sae_b", "diets"),
        ("DELETE FROM nulls WHERE statistic LIKE 'align%'", None),
        ("DROP TABLE training", "training"),
        ("DROP TABLE probing", "probing"),
    ],
)
def test_a_figure_without_its_rows_is_absent_and_the_others_stay(
    change: str, gone: str | None, catalog: Make, config: Make
) -> None:
    con = catalog(models=("one",), whole=True)
    con.execute(change)
    result = contents(con, config(models=("one",)))
    there = {drawn.name for drawn in result["figures"].values()}
    assert there == {*ALWAYS, "diets", "retrieval", "alignment", "frontier", "probing"} - {gone}


def test_sensitivity_is_shown_when_settings_differ_in_one_key(catalog: Make, config: Make) -> None:
    con = catalog(models=("one",), saes=("main", "other", "third"))
    con.execute("""UPDATE saes SET r2 = 0.6 + 0.1 * seed, settings = '{"k": 2, "width": 32}' WHERE sae = 'other'""")
    con.execute("""UPDATE saes SET settings = '{"k": 4, "width": 16}' WHERE sae = 'third'""")
    result = contents(con, config(models=("one",), saes=("main", "other", "third")))
    drawn = result["figures"]["sensitivity"]
    assert [panel.title for panel in drawn.panels] == ["one, main", "one, other", "one, third"]
    # `main` has an R2 of .8 in both seeds, `other` of .6 and .7. They differ in width, and `main` and `third` in k.
    assert "r2 moves farthest, by −0.150 with width = 32" in drawn.panels[0].label.replace("-", "−")
    assert {key.label for key in drawn.keys} == {"k", "width", "range over seeds"}
    assert "Settings that differ in k have another L0" in drawn.caption
    rows = [[cell.text for cell in row] for row in result["tables"]["sensitivity"].rows]
    first = ["main", "one", "r2", "0.800", "0.000", "width", "32", "0.650", "0.600", "0.700", "−0.150"]
    assert first in [row[:11] for row in rows]
    assert not [row for row in rows if row[2].startswith("r2") and row[5] == "k"]
    page = rendered(result)
    assert "Sensitivity to settings" in page
    assert 'id="figure-sensitivity"' in page


def test_sensitivity_draws_the_ranges_of_both_settings(catalog: Make, config: Make) -> None:
    con = catalog(models=("one",), saes=("main", "other"))
    con.execute("""UPDATE saes SET r2 = 0.6 + 0.1 * seed, settings = '{"k": 2, "width": 32}' WHERE sae = 'other'""")
    con.execute("UPDATE saes SET r2 = 0.8 + 0.05 * seed WHERE sae = 'main'")

    def drawn() -> tuple[Any, Axes]:
        figure = contents(con, config(models=("one",), saes=("main", "other")))["figures"]["sensitivity"]
        axes = Figure().add_subplot()
        figure.panels[0].draw(axes)
        return figure, axes

    def bars(axes: Axes) -> list[list[float]]:
        return [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "None" and line.get_alpha()]

    figure, axes = drawn()
    # The seeds of `main` have .8 and .85, a mean of .825; those of `other` have .6 and .7.
    assert pytest.approx([0.6 - 0.825, 0.7 - 0.825]) in bars(axes)
    widths = [patch.get_width() for patch in axes.patches]
    assert widths[0] == pytest.approx(2 * 0.05)
    statistics = len(axes.get_yticks())
    assert len(widths) == statistics - 1  # two seeds are one pair: the range of the stability is not known
    assert "The range over seeds is not known for stability." in figure.panels[0].label
    assert "Results without a band have one value (one seed; for stability, one pair of seeds)" in figure.caption
    con.execute("DELETE FROM saes WHERE seed = 1; DELETE FROM matches; DELETE FROM bridge_totals WHERE seed = 1")
    con.execute("DELETE FROM concepts WHERE seed = 1")
    figure, axes = drawn()
    assert (bars(axes), list(axes.patches)) == ([], [])
    assert "No band is drawn: with one seed" in figure.caption
    assert "claim" not in figure.caption
    assert "range over seeds" not in {key.label for key in figure.keys}


def test_a_consensus_sae_stands_beside_the_seeds_that_it_was_made_from(catalog: Make, config: Make) -> None:
    con = catalog(saes=("main", "main-consensus"), models=("one",))
    study = config(models=("one",)) | {"consensus": True}
    assert "consensus" not in contents(con, study)["tables"]
    con.execute("DELETE FROM saes WHERE sae = 'main-consensus' AND seed = 1")
    con.execute("UPDATE saes SET r2_image = 0.25, l0 = 3.5 WHERE sae = 'main-consensus'")
    con.execute("UPDATE saes SET r2_image = 0.5 + seed / 5, l0 = 4 + seed WHERE sae = 'main'")
    con.execute(
        """CREATE TABLE consensus_members AS
        SELECT 'one' AS model, 'main-consensus' AS sae, 0 AS seed, concept_id, 'main' AS of_sae, of_seed,
            7 AS of_concept, 0.9 + of_seed / 20 AS cosine
        FROM range(4) AS c(concept_id), range(2) AS s(of_seed)
        WHERE concept_id <> 2 OR of_seed = 0"""  # one seed of two holds concept 2
    )
    con.execute((SQL / "views" / "consensus.sql").read_text())
    assert con.execute("SELECT seeds FROM consensus ORDER BY concept_id").fetchall() == [(2,), (2,), (1,), (2,)]
    shown = contents(con, study)["tables"]["consensus"]
    (row,) = [[cell.text for cell in cells] for cells in shown.rows]
    values = dict(zip([cell.text for cell in shown.head], row, strict=True))
    assert row[:5] == ["main-consensus", "one", "16", "4", "75\u202f%"]
    assert values["cosine to merged"] == "0.919"  # three times (0.9 + 0.95) / 2, and 0.9
    assert row[6:8] == ["0.250", "0.600"]
    assert row[-2:] == ["3.50", "4.50"]


def test_frozen_twins_stand_beside_the_setting_and_are_absent_without_any(catalog: Make, config: Make) -> None:
    con = catalog(saes=("main", "main-frozen_encoder"), models=("one",))
    study = config(models=("one",))
    assert "frozen" not in contents(con, study)["tables"]
    con.execute("UPDATE saes SET frozen = 'frozen_encoder', twin_of = 'main', r2_image = 0.4 WHERE sae <> 'main'")
    shown = contents(con, study)["tables"]["frozen"]
    rows = [[cell.text for cell in row] for row in shown.rows]
    heads = [cell.text for cell in shown.head]
    first = dict(zip(heads, rows[0], strict=True))
    # R2 of images is .7 for the trained SAE and .4 for its twin: (.7 - .4) / (1 - .4) = .5.
    assert (first["result"], first["trained"], first["frozen encoder"], first["excess"]) == (
        "r2 image", "0.700", "0.400", "0.500",
    )  # fmt: skip
    assert "frozen decoder" not in heads  # the study has no such twin
    assert "Frozen nulls" in rendered(contents(con, study))


def test_the_precision_of_bridges_stands_beside_that_of_the_best_frozen_twin(catalog: Make, config: Make) -> None:
    con = catalog(saes=("main", "main-frozen_encoder"), models=("one",), whole=True)
    con.execute("UPDATE concept_labels SET label = 'all alike' WHERE sae <> 'main'")  # each bridge joins one label
    con.execute("UPDATE concept_labels SET label = concept_id::VARCHAR WHERE sae = 'main'")  # none does

    def shown() -> dict[str, str]:
        table = contents(con, config(models=("one",)))["tables"]["bridge_precision"]
        return dict(zip([cell.text for cell in table.head], [cell.text for cell in table.rows[0]], strict=True))

    alone = shown()
    assert "best frozen twin" not in alone
    con.execute("UPDATE saes SET frozen = 'frozen_encoder', twin_of = 'main' WHERE sae <> 'main'")
    beside = shown()
    assert beside.pop("best frozen twin") == "100\u202f%"
    assert beside == alone
    assert alone["of one label"] == "0\u202f%"


def test_without_neighbours_sensitivity_is_absent(catalog: Make, config: Make) -> None:
    result = contents(catalog(models=("one",), whole=True), config(models=("one",)))
    assert "sensitivity" not in result["figures"]
    assert "Sensitivity to settings" not in rendered(result)


def test_without_findings_or_geometry_their_tables_are_absent(catalog: Make, config: Make) -> None:
    page = rendered(contents(catalog(models=("one",)), config(models=("one",))))
    assert "In words" not in page
    assert "Subspaces that separate images from captions" not in page
    assert ParsedPage(page).without_sql == []


def test_files_have_the_colours_of_the_light_scheme(page: str) -> None:
    light = dict(re.findall(r"(--\w+): (#\w{6});", page[: page.index("prefers-color-scheme: dark")]))
    assert {variable: light[variable] for variable in VARIABLES.values()} == {v: c for c, v in VARIABLES.items()}


def test_blue_and_orange_stand_for_image_and_text_alone(folder: Path) -> None:
    with_them = {
        path.stem
        for path in (folder / "figures").glob("*.svg")
        if any(color in path.read_text(encoding="utf-8") for color in (IMAGE, TEXT))
    }
    assert with_them == {"modality", "alignment"}


def test_claims_come_first_and_show_what_the_verdict_follows_from(page: str) -> None:
    parsed = ParsedPage(page)
    assert next(dict(attributes).get("class") for tag, attributes in parsed.tags if tag == "table") == "claims"
    shown = re.sub(r"\s+", "|", parsed.text)

    def row(*cells: str) -> str:
        return r"\|?".join(re.escape(cell).replace(r"\ ", r"\|") for cell in cells)

    # 6 of 7 hits are kept in each group and seed, so the interval has no width. Chance is 1 of 10 over a recall of .7.
    kept = ("reconstructions keep most of the retrieval R@1, text to image", "one", "0.857", "0.857 – 0.857")
    assert re.search(row(*kept, "chance 0.143 (0.000 – 0.331)", "> 0.500", "holds: above chance"), shown)
    # The net total of every seed is .5 * 6 - .5, with and without each group, and the draws lie between 0 and .1.
    bridging = ("unimodal concepts of opposite modality bridge together", "one", "2.500", "2.500 – 2.500")
    assert re.search(row(*bridging, "images permuted 0.0"), shown)
    assert "Rule:|above|chance|in|every|seed." in shown
    # Two seeds are one pair, which has no interval. The twin main-half-a has the same cosines.
    stable = ("common concepts are stable", "one", "0.800", "–", "frozen decoder 0.800", "–", "undecided")
    assert re.search(row(*stable), shown)
    assert re.search(r"Of\|\d+\|claims\|\d+\|holds?\|in\|every\|model,.*undecided\|in\|one\|model\|or\|more", shown)


def test_findings_of_an_older_version_are_left_out(catalog: Make, config: Make) -> None:
    con = catalog(models=("one",), whole=True)
    con.execute("ALTER TABLE findings DROP COLUMN verdict")
    page = rendered(contents(con, config(models=("one",))))
    assert 'class="claims"' not in page
    assert "Stability" in page


def test_pictures_and_captions_of_the_files_are_text_never_markup(folder: Path) -> None:
    svg = (folder / "figures" / "bridges-one.svg").read_text(encoding="utf-8")
    assert "<script" not in svg
    words = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]
    assert "<script>alert(1)</script> & \"quotes\" 'single'" in words
    assert svg.count("data:image/png;base64") > 12


def test_thumbnail_is_small_webp_on_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (400, 100), (255, 0, 0, 0)).save(out, "PNG")  # red, but fully transparent
    uri = thumbnail(out.getvalue())
    assert uri is not None
    head, data = uri.split(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (96, 24)
        assert picture.convert("L").getpixel((48, 12)) > 250


def test_thumbnail_of_what_is_no_picture_is_none() -> None:
    assert thumbnail(b"") is None
    assert thumbnail(b"\x89PNG\r\n\x1a\nbroken") is None


def test_a_view_with_a_page_section_is_a_plain_table(
    catalog: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    con = catalog(models=("one",))
    before = rendered(contents(con, config(models=("one",))))
    con.execute("CREATE VIEW toy AS SELECT 'one' AS model, i::BIGINT AS rank_of, i / 8 AS share FROM range(30) AS r(i)")
    assert rendered(contents(con, config(models=("one",)))) == before  # a view without an SQL file has no section
    sql = shutil.copytree(SQL, tmp_path / "sql")
    (sql / "views" / "toy.sql").write_text(
        "-- Purpose: shares that count up.\n-- Columns: model; rank_of; share.\n-- Page: Shares <in> order\n"
    )
    monkeypatch.setattr("storage.documentation.SQL", sql)
    page = rendered(contents(con, config(models=("one",))))
    start = page.index("<h2>Shares &lt;in&gt; order</h2>")
    section = page[start : page.index("</section>", start)]
    assert section.count("<tr>") == 1 + 20
    assert '<th scope="col">model</th><th scope="col" class="n">rank of</th>' in section
    assert '<td>one</td><td class="n">3</td><td class="n">0.375</td>' in section
    assert '<p class="note">shares that count up</p>' in section
    assert "FROM &#34;toy&#34; LIMIT 20" in section
    assert page.index("<h2>Asking more</h2>") > start
    assert page.replace(page[start - len("<section>\n") : page.index("<section", start)], "") == before


def test_the_frontier_names_the_best_method_at_equal_l0() -> None:
    def row(method: str, k: int, l0: float, r2: float, at_k: float | None) -> dict[str, Any]:
        figures = {"l0": l0, "r2": r2, "r2_image": r2, "r2_text": r2, "r2_image_at_k": at_k, "r2_text_at_k": at_k}
        return {"model": "one", "method": method, "encoder": "own", "k": k, "width": 8, **figures}

    def label(rows: list[dict[str, Any]]) -> str:
        drawn = r2_against_l0(Answer("", [], rows), [("one", "main")])
        assert drawn is not None
        return drawn.panels[0].label

    # ReLU has the highest R2 of all, at an L0 of 40, and PCA at a k of its own. Most methods have the k of 2 and of 4.
    rows = [
        row("kmeans", 1, 1, 0.2, 0.2), row("topk", 2, 2, 0.5, 0.5), row("relu", 2, 30, 0.9, 0.55),
        row("topk", 4, 4, 0.6, 0.6), row("relu", 4, 40, 0.99, 0.58), row("pca", 8, 8, 0.98, 0.98),
    ]  # fmt: skip
    assert label(rows).endswith("4 methods; at an L0 of 4 the highest is TopK, 0.600.")
    assert label([each | {"r2_image_at_k": None} for each in rows]).endswith("4 methods.")


@pytest.mark.slow
def test_saes_whose_r2_had_not_flattened_are_listed_with_the_curves(catalog: Make, config: Make) -> None:
    con = catalog(models=("one",), saes=("main", "other"))
    con.execute(
        """DELETE FROM training;
        INSERT INTO training
        SELECT 'one', sae, seed, 10 * i, i / 2, 1.0, slope * i, 2.0, 0.0, 1.0
        FROM
            (VALUES ('main', 0, 0.001), ('main', 1, 0.0011), ('other', 0, 0.0001), ('other', 1, 0.1))
                AS t(sae, seed, slope),
            range(1, 51) AS r(i)
        WHERE (sae, seed) <> ('other', 1) OR i < 10"""
    )

    def listed() -> str:
        page = rendered(contents(con, config(models=("one",), saes=("main", "other"))))
        section = page[page.index('<section id="training">') :]
        return section[section.index("</figure>") : section.index("</section>")]

    # R2 rises by 20 times the slope between two fifths and four fifths of 50 points. The last SAE has nine points.
    lines = re.findall("<li>(.*?)</li>", listed())
    assert lines == ["one, main, seeds 0, 1: by up to 0.022"]
    assert "it rose by more than 0.01" in listed()
    assert "one, other, seed 1.</p>" in listed()
    con.execute("UPDATE saes SET frozen = 'frozen_encoder' WHERE sae = 'main'; DELETE FROM training WHERE seed = 1")
    assert "<p" not in listed()


def test_dead_in_a_curve_is_not_dead_in_the_tables(catalog: Make, config: Make) -> None:
    page = contents(catalog(models=("one",)), config(models=("one",)))
    assert "dead: concepts that hardly fired of late" in page["figures"]["training"].caption
    assert "Dead: fires on no training row." in page["tables"]["reconstruction"].note
