"""All views over a live server. SQL, and a caption or an image of the user's own, need a server."""

from __future__ import annotations

import csv
import io
import json

import pytest
from browser_support import PHONE
from playwright.sync_api import expect

FRAGMENTS = ("#/map?sel=12", "#/items?concept=12", "#/concept/12", "#/bridges", "#/compare")


def test_every_view_opens_over_the_store(open_page, live, shot):
    opened = open_page(live)
    names = opened.page.get_by_role("navigation", name="Views").get_by_role("link").all_inner_texts()
    assert names == ["Map", "Items", "Bridges", "Compare", "SQL", "Try it"]
    for fragment in FRAGMENTS:
        opened.visit(fragment)
        opened.heading()
        opened.fits()
        shot(opened, f"live-{fragment[2:].split('?')[0].replace('/', '-')}")


def test_sql_is_answered_as_a_table_and_as_csv(open_page, live, shot):
    opened = open_page(live, "#/sql")
    page = opened.page
    page.get_by_role("textbox", name="Statement").fill("SELECT 6 * 7 AS answer, '<b>' AS mark, NULL AS none")
    page.get_by_role("button", name="Ask").click()
    cells = page.locator(".answer tbody td")
    expect(cells).to_have_text(["42", "<b>", "NULL"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text())))
    assert rows[0] == ["answer", "mark", "none"]
    assert rows[1][:2] == ["42", "<b>"]
    page.get_by_role("group", name="Examples").get_by_role("button").first.click()
    expect(page.locator(".answer thead th").first).to_be_visible()
    assert "q=" not in page.url or "findings" in page.url
    page.locator(".schema summary", has_text="concepts").first.click()
    expect(page.locator(".schema dt", has_text="modality_score").first).to_be_visible()
    shot(opened, "live-sql")


@pytest.mark.parametrize(
    "query",
    ["SELEC 1", "SELECT 1; SELECT 2", "COPY concepts TO 'x.csv'", "FROM read_csv('/etc/passwd')", "ATTACH 'x.db'", ""],
)
def test_an_sql_error_is_shown(open_page, live, query):
    opened = open_page(live, "#/sql")
    page = opened.page
    page.get_by_role("textbox", name="Statement").fill(query)
    page.get_by_role("button", name="Ask").click()
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    assert len(alert.inner_text()) > len("This could not be shown") + 10
    expect(page.get_by_role("button", name="Ask")).to_be_enabled()
    # The browser logs an answer with status 400 as an error.
    assert all("400" in error for error in opened.errors), opened.errors
    opened.errors.clear()


def test_a_statement_in_the_address_is_asked(open_page, live):
    opened = open_page(live, "#/sql?q=SELECT%20count(*)%20AS%20n%20FROM%20concepts")
    expect(opened.page.locator(".answer thead th")).to_have_text("n")


def test_a_caption_is_tried_and_stands_in_the_address(open_page, live, shot):
    opened = open_page(live, "#/try")
    page = opened.page
    page.set_default_timeout(90_000)  # the first request loads the model
    page.get_by_role("textbox", name="Caption").fill("red heart")
    page.get_by_role("button", name="Try this caption").click()
    page.locator(".codes li").first.wait_for()
    assert "heart" in " ".join(page.locator(".answer .captions .said").all_text_contents())
    assert page.locator(".answer .pictures img").count() == 12
    assert "text=red+heart" in page.url
    shot(opened, "live-try-caption")


def test_a_dropped_image_is_encoded(open_page, live, shot):
    opened = open_page(live, "#/try")
    page = opened.page
    page.set_default_timeout(90_000)
    index = page.evaluate("fetch('data/items/index.json').then((answer) => answer.json())")
    item = next(iter(index["images"]))
    page.evaluate(
        """async (item) => {
            const picture = await (await fetch(`api/image/${item}`)).blob()
            const transfer = new DataTransfer()
            transfer.items.add(new File([picture], "dropped.webp", {type: picture.type || "image/webp"}))
            const drop = document.querySelector(".drop")
            for (const name of ["dragenter", "dragover", "drop"])
                drop.dispatchEvent(new DragEvent(name, {bubbles: true, cancelable: true, dataTransfer: transfer}))
        }""",
        item,
    )
    page.locator(".codes li").first.wait_for()
    expect(page.get_by_alt_text("Your image, dropped.webp")).to_be_visible()
    nearest = page.locator(".answer .pictures a").first
    assert nearest.get_attribute("href").startswith(f"#/item/i{item}")  # an image of the study is nearest to itself
    assert nearest.inner_text().strip() == "1.00"
    shot(opened, "live-try-image")


def test_a_file_that_is_no_image_is_refused_with_words(open_page, live):
    opened = open_page(live, "#/try")
    opened.page.locator("#image-file").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no"})
    expect(opened.page.get_by_role("alert")).to_contain_text("notes.txt is not an image")
    opened.page.locator("#image-file").set_input_files({"name": "torn.png", "mimeType": "image/png", "buffer": b"torn"})
    expect(opened.page.get_by_role("alert")).not_to_contain_text("notes.txt", timeout=90_000)
    assert all("400" in error for error in opened.errors), opened.errors
    opened.errors.clear()


def test_the_shared_data_is_the_published_data(open_page, live):
    opened = open_page(live, "#/compare")
    manifest = json.loads(opened.page.evaluate("fetch('data/manifest.json').then((answer) => answer.text())"))
    assert manifest["live"] is True
    assert manifest["study"] == "demo"
    rows = opened.page.get_by_role("region", name="SAEs").locator("tbody tr")
    expect(rows).to_have_count(len(manifest["runs"]))


def test_macros_are_listed_with_their_documentation(open_page, live, shot):
    opened = open_page(live, "#/sql")
    opened.page.locator("details.macro summary", has_text="concept_shift").click()
    expect(opened.page.get_by_text("the concepts that two sets of items use differently")).to_be_visible()
    expect(opened.page.locator("details.macro[open]")).to_contain_text("energy_difference")
    shot(opened, "live-sql-macro")


def test_cells_break_between_words_and_columns_have_one_number_of_decimals(open_page, live):
    query = "SELECT concept_id, name, energy, modality_score, repeat('long ', 30) AS words FROM concepts LIMIT 20"
    opened = open_page(live, f"#/sql?q={query}")
    opened.page.locator(".answer tbody tr").first.wait_for()
    for column in (3, 4):
        cells = opened.page.locator(f".answer tbody td:nth-child({column})").all_inner_texts()
        assert len({len(text.partition(".")[2]) for text in cells if "e" not in text and text != "NULL"}) == 1
    narrow = opened.page.evaluate(
        """() => [...document.querySelectorAll('.answer td .cell')].filter((cell) => {
            const probe = document.createElement('span')
            probe.style.font = getComputedStyle(cell).font
            probe.style.position = 'absolute'
            document.body.append(probe)
            const wide = (word) => ((probe.textContent = word), probe.offsetWidth)
            const widest = Math.max(...cell.textContent.split(/[ -]/).map(wide))
            probe.remove()
            return cell.clientWidth + 1 < Math.min(widest, 500)
        }).length"""
    )
    assert narrow == 0


def test_an_sql_error_keeps_its_lines(open_page, live):
    opened = open_page(live, "#/sql?q=SELECT nothing_like_it FROM concepts")
    alert = opened.page.get_by_role("alert").locator("p:not(.notice-title)").first
    expect(alert).to_contain_text("nothing_like_it")
    assert "\n" in alert.inner_text()
    assert alert.evaluate("(element) => getComputedStyle(element).whiteSpace") == "pre-wrap"
    assert all("400" in error for error in opened.errors), opened.errors
    opened.errors.clear()


def test_the_sql_page_shows_the_catalog_of_an_older_run(open_page, live):
    opened = open_page(live, "#/compare", viewport=PHONE)  # a phone loads nothing ahead
    page = opened.page
    column = {"name": "n", "type": "BIGINT", "doc": "how many"}
    old = {"views": [{"name": "older", "purpose": "an old view", "columns": [column]}], "macros": []}
    old["examples"] = [{"title": "All of it", "query": "SELECT 7 AS seven"}]

    def older(route):
        route.fulfill(json=route.fetch().json() | old)

    page.route("**/data/manifest.json", older)
    page.route("**/data/catalog.json", lambda route: route.fulfill(status=404, body="{}"))
    page.reload()
    page.evaluate("location.hash = '#/sql'")
    expect(page.get_by_text("older", exact=True)).to_be_visible()
    page.get_by_role("button", name="All of it").click()
    expect(page.locator(".answer td").first).to_have_text("7")
