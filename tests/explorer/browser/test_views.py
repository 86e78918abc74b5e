"""Every view opens by clicks and by its address, and keeps its state in the address."""

from __future__ import annotations

import csv
import re

import pytest
from browser_support import PHONE, Opened
from PIL import Image
from playwright.sync_api import Page, expect

BY_ADDRESS = {
    "map": ("#/map?sel=20", "Map of concepts"),
    "list": ("#/map?as=list", "Map of concepts"),
    "concept": ("#/concept/20", "family"),
    "bridges": ("#/bridges?sort=pairs", "Bridges"),
    "image": ("#/item/i20", "drawn small|a "),
    "caption": ("#/item/t41", "drawn small"),
    "compare": ("#/compare", "Compare"),
    "search": ("#/search?q=crimson", "Search: crimson"),
    "items": ("#/items?concept=20", "Map of items"),
    "files": ("#/files", "Files"),
}


@pytest.mark.parametrize("view", BY_ADDRESS)
def test_every_view_opens_by_its_address(open_page, published, shot, view):
    fragment, heading = BY_ADDRESS[view]
    opened = open_page(published, fragment)
    expect(opened.page.locator("#page-heading")).to_contain_text(re.compile(heading))
    shot(opened, f"published-{view}")
    opened.page.set_viewport_size(PHONE)
    opened.settled()
    opened.fits()
    shot(opened, f"published-{view}-phone")


def test_every_view_is_reached_by_clicking(open_page, published):
    opened = open_page(published)
    page = opened.page
    opened.heading("Map of concepts")
    views = page.get_by_role("navigation", name="Views")
    assert views.get_by_role("link").all_inner_texts() == [
        "Map",
        "Items",
        "Bridges",
        "Compare",
        "Files",
    ]  # the view SQL needs a server
    views.get_by_role("link", name="Bridges").click()
    opened.heading("Bridges")
    page.locator(".bridge .concept-link").first.click()
    opened.heading()
    assert "#/concept/" in page.url
    page.locator(".concept-items .pictures a").first.click()
    expect(page.get_by_text("Image, held out of training")).to_be_visible()
    page.locator(".item-head .plain a").first.click()
    expect(page.get_by_text("Caption, held out of training")).to_be_visible()
    page.locator(".codes .concept-link").first.click()
    expect(page.get_by_role("heading", name="Images on which it fires most")).to_be_visible()
    page.get_by_role("link", name="On the map").click()
    expect(page.get_by_role("complementary", name="Selected concept")).to_be_visible()
    views.get_by_role("link", name="Compare").click()
    opened.heading("Compare")


def test_a_bridge_is_followed_and_back_returns_to_the_place(open_page, published):
    opened = open_page(published, "#/bridges?sort=correlation_bridge&self=no")
    page = opened.page
    before = page.url
    row = page.locator(".bridge").nth(24)
    row.scroll_into_view_if_needed()
    opened.settled()
    here = page.evaluate("scrollY")
    link = row.locator(".concept-link").last
    name = link.locator(".concept-name").inner_text()
    link.click()
    opened.heading(name)
    opened.settled()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    opened.heading("Bridges")
    opened.settled()
    assert page.url == before
    opened.until(f"Math.abs(scrollY - {here}) < 5")


def test_from_a_concept_to_its_strongest_bridge_to_its_match_and_back(open_page, published):
    opened = open_page(published, "#/concept/30")
    page = opened.page
    page.locator(".bridges .concept-link").first.click()
    opened.until("!location.hash.includes('/30')")
    page.go_back()
    opened.until("location.hash.includes('/concept/30')")
    page.get_by_role("link", name=re.compile("seed 1, concept")).click()
    expect(page.get_by_text("seed 1. ")).to_be_visible()
    expect(page.get_by_label("seed")).to_have_value("1")
    page.go_back()
    expect(page.get_by_label("seed")).to_have_value("0")


def test_search_finds_concepts_and_captions(open_page, published):
    opened = open_page(published)
    page = opened.page
    box = page.get_by_role("searchbox", name="Search concepts and captions")
    box.fill("teal square small")
    suggestions = page.locator(".suggestions")
    expect(suggestions.get_by_text(re.compile(r"Captions \([1-9]"))).to_be_visible()
    box.fill("teal")
    expect(suggestions.get_by_text(re.compile(r"Concepts \([1-9]"))).to_be_visible()
    box.press("ArrowDown")
    expect(suggestions.locator("a").first).to_be_focused()
    page.keyboard.press("Enter")
    opened.heading("teal")
    box.fill("goldenrod ring")
    box.press("Enter")
    opened.heading("Search: goldenrod ring")
    for text in page.locator(".captions-found a").all_inner_texts():
        assert "goldenrod" in text
        assert "ring" in text
    box.fill("no such word anywhere")
    box.press("Enter")
    expect(page.get_by_text("No concept and no caption has these words").last).to_be_visible()


def pairs(page: Page) -> list[int]:
    """For every bridge that is shown, the number of its pairs."""
    shown = page.locator(".bridge-numbers dl > div:nth-child(5) dd").all_inner_texts()
    return [int(text.replace(",", "")) for text in shown]


def test_bridges_are_sorted_and_searched(open_page, published):
    opened = open_page(published, "#/bridges")
    page = opened.page
    page.get_by_label("Sort by").select_option("pairs")
    assert pairs(page) == sorted(pairs(page), reverse=True)
    page.get_by_label("Order").select_option("up")
    assert pairs(page) == sorted(pairs(page))
    assert "sort=pairs" in page.url
    assert "dir=up" in page.url
    first = page.locator(".bridge .id").first.inner_text()
    page.get_by_label("Search", exact=True).fill(first)
    expect(page.get_by_role("status")).to_contain_text(" of 400 bridges")
    for row in page.locator(".bridge").all():
        assert first in row.locator(".id").all_inner_texts()
    page.reload()
    expect(page.get_by_label("Search", exact=True)).to_have_value(first)


def paper(page: Page) -> str:
    """The background colour of the bar at the top of the page."""
    return str(page.evaluate("getComputedStyle(document.querySelector('.top')).backgroundColor"))


def test_the_scheme_changes_and_is_remembered(open_page, published):
    opened = open_page(published, "#/concept/20", color_scheme="light")
    page = opened.page
    light = paper(page)
    page.get_by_role("button", name="Change to dark").click()
    dark = paper(page)
    assert dark != light
    page.reload()
    opened.settled()
    assert paper(page) == dark
    system = open_page(published, "#/concept/20", color_scheme="dark")
    assert paper(system.page) == dark


def test_missing_concepts_items_and_runs_show_a_message(open_page, published):
    opened = open_page(published, "#/concept/999999")
    expect(opened.page.get_by_text("There is no concept 999999")).to_be_visible()
    opened.visit("#/item/i999999")
    expect(opened.page.get_by_text("There is no such item here")).to_be_visible()
    opened.visit("#/map?run=other/main/0")
    expect(opened.page.get_by_text("This study has no SAE other/main/0")).to_be_visible()
    opened.page.get_by_role("link", name="planted/main/1").click()
    opened.heading("Map of concepts")
    opened.visit("#/sql")
    expect(opened.page.get_by_text("The view SQL needs the live explorer")).to_be_visible()
    opened.visit("#/try")
    expect(opened.page.get_by_text("The view Try it needs the live explorer")).to_be_visible()
    opened.visit("#/nowhere/%")
    opened.heading("Map of concepts")


def test_a_failed_file_shows_a_message_and_is_read_again(open_page, published):
    opened = open_page(published, "#/compare")
    page = opened.page
    page.route("**/bridges.json", lambda route: route.fulfill(status=500, body="broken"))
    page.evaluate("location.hash = '#/bridges?run=planted/main/1'")  # those of the SAE that is shown are read ahead
    expect(page.get_by_role("alert")).to_contain_text("the host answered 500")
    page.unroute("**/bridges.json")
    page.get_by_role("button", name="Try again").click()
    opened.heading("Bridges")
    page.route("**/words.json", lambda route: route.fulfill(body='{"0": "cut sho'))
    page.evaluate("location.hash = '#/bridges?run=planted/main/0'")
    expect(page.get_by_role("alert")).to_contain_text("it may be cut short")
    page.unroute("**/words.json")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".bridge").first).to_be_visible()
    forgive(opened, "500")


def forgive(opened: Opened, status: str) -> None:
    """Check that all errors are the browser's own reports of an answer with this status, and remove them."""
    assert all(status in error for error in opened.errors), opened.errors
    opened.errors.clear()


def test_a_site_without_items_says_so_and_asks_for_none(open_page, without_items, shot):
    opened = open_page(without_items, "#/concept/20")
    expect(opened.page.get_by_text("Images are not part of this site")).to_be_visible()
    expect(opened.page.get_by_text("Captions are not part of this site")).to_be_visible()
    shot(opened, "withheld-concept")
    opened.visit("#/item/i3")
    expect(opened.page.get_by_text("The view Item needs captions and images")).to_be_visible()
    for fragment in ("#/map?sel=20", "#/bridges", "#/search?q=teal"):
        opened.visit(fragment)
        opened.heading()
    assert opened.page.locator("img").count() == 0


def test_published_files_are_linked_and_there(open_page, published, shot):
    opened = open_page(published)
    opened.page.get_by_role("navigation", name="Views").get_by_role("link", name="Files").click()
    opened.heading("Files")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("link", name="saes.csv").click()
    assert "planted/main/0" in download.value.path().read_text()
    shot(opened, "published-files")


def test_the_first_view_on_a_phone_is_small(open_page, published_demo, demo_site):
    """Sizes without compression, which most hosts add. A phone loads nothing before it is needed."""
    opened = open_page("about:blank", viewport=PHONE)
    opened.address = published_demo
    answers = []
    opened.page.on("response", lambda answer: answers.append(answer))
    opened.visit("")
    opened.page.wait_for_timeout(1500)  # a desktop loads other views by then
    sizes = {answer.url: len(answer.body()) for answer in answers}
    assert any(url.endswith("/concepts.json") for url in sizes)
    assert sum(sizes.values()) < 600_000, sizes
    tables = ("saes", "statistics", "items")  # beside the pages, which do not read them
    pages = [path for path in demo_site.rglob("*") if path.relative_to(demo_site).parts[0] not in tables]
    assert sum(path.stat().st_size for path in pages if path.is_file()) < 30e6


def test_maps_and_lists_are_downloads_too(open_page, published):
    opened = open_page(published, "#/map?sel=20")
    page = opened.page
    for fragment in ("#/map?sel=20", "#/items"):
        opened.visit(fragment)
        page.wait_for_timeout(500)
        with page.expect_download() as picture:
            page.get_by_role("button", name="Save as PNG").click()
        with Image.open(picture.value.path()) as image:
            shown = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
        assert len(shown) >= 3  # the ground, and dots of two colours
    opened.visit("#/bridges?self=no")
    with page.expect_download() as rows:
        page.get_by_role("button", name="Download this list as CSV").click()
    head, first, *others = csv.reader(rows.value.path().read_text().splitlines())
    assert head[:5] == ["image_concept", "image_name", "text_concept", "text_name", "pairs"]
    assert len(first) == len(head) == 10
    shown = page.get_by_role("status").first.inner_text()
    assert shown.startswith(f"{len(others) + 1} of")


def test_every_table_and_chart_has_its_download(open_page, published):
    opened = open_page(published, "#/concept/20")
    page = opened.page
    with page.expect_download() as vector:
        page.get_by_role("button", name="Download this chart as SVG").first.click()
    text = vector.value.path().read_text()
    assert text.startswith("<svg")
    assert "var(--" not in text
    with page.expect_download() as raster:
        page.get_by_role("button", name="Download this chart as PNG").first.click()
    assert raster.value.path().read_bytes()[1:4] == b"PNG"
    opened.visit("#/compare")
    with page.expect_download() as rows:
        page.get_by_role("button", name="Download this table as CSV").first.click()
    assert "," in rows.value.path().read_text().splitlines()[0]
    for table in page.locator("table").all():
        if table.is_visible():
            assert table.evaluate(
                "(table) => (table.closest('.scroll') ?? table).nextElementSibling.classList.contains('downloads')"
            )
