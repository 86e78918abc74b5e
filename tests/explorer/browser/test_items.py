"""The map of items: by click, by address and by keyboard, its selection, and what it is joined to."""

from __future__ import annotations

import csv
import io
import itertools
import re

import pyarrow.parquet as pq
import pytest
from browser_support import DESKTOP, PHONE, TABLET, Opened
from playwright.sync_api import expect

SIZES = (PHONE, TABLET, DESKTOP)
ITEMS = 96 * 3  # of the planted site: 96 images, two captions each
CANVAS = "Map of items. Arrow keys step from dot to dot"


def canvas(opened: Opened):
    """The element that receives pointer and key events."""
    return opened.page.get_by_role("application", name=re.compile(re.escape(CANVAS)))


def drawn(opened: Opened) -> None:
    """Wait for the first frame with all items."""
    opened.until("performance.getEntriesByName('explorer:items').length > 0")


def box(opened: Opened) -> dict[str, float]:
    found = canvas(opened).bounding_box()
    assert found is not None
    return found


def around(opened: Opened, inset: float) -> list[tuple[float, float]]:
    """The corners of a rectangle within the map, in pixels of the window; inset: share of each side."""
    at = box(opened)
    left, top = at["x"] + inset * at["width"], at["y"] + inset * at["height"]
    right, bottom = at["x"] + (1 - inset) * at["width"], at["y"] + (1 - inset) * at["height"]
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def drag(opened: Opened, corners: list[tuple[float, float]]) -> None:
    page = opened.page
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in [*corners[1:], corners[0]]:
        page.mouse.move(*corner, steps=6)
    page.mouse.up()


def picked(opened: Opened) -> int:
    """The number of selected items, as the panel says it."""
    heading = opened.page.get_by_role("region", name="Selection").get_by_role("heading", level=2)
    return int(heading.inner_text().split()[0].replace(",", ""))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size["width"]))
def test_the_map_opens_by_its_address_at_every_width(open_page, published, shot, size):
    opened = open_page(published, f"#/items?concept=1&sel=3&pick={ITEMS}_5.1*9", viewport=size)
    drawn(opened)
    expect(opened.page.locator(".map-note")).to_contain_text("96 images, 192 captions")
    expect(opened.page.locator(".map-note")).to_contain_text("highlighted")
    assert picked(opened) == 10
    expect(opened.page.get_by_role("link", name="Open this item")).to_be_visible()
    opened.settled()
    opened.fits()
    assert opened.serious() == []
    shot(opened, f"items-{size['width']}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding(open_page, published, shot, scheme):
    opened = open_page(published, f"#/items?by=codes&sel=3&pick={ITEMS}_5.1*9", color_scheme=scheme)
    drawn(opened)
    opened.settled()
    assert opened.serious() == []
    shot(opened, f"items-{scheme}")


def test_a_concept_lights_its_items_by_clicks(open_page, published):
    opened = open_page(published, "#/map?sel=20")
    opened.page.get_by_role("link", name="Highlight its items").click()
    opened.heading("Map of items")
    drawn(opened)
    note = opened.page.locator(".map-note")
    expect(note).to_contain_text(re.compile(r"\d+ highlighted$"))
    assert "concept=20" in opened.page.url
    opened.page.get_by_role("button", name="Highlight none").click()
    expect(note).to_have_text("96 images, 192 captions")
    opened.page.get_by_role("spinbutton").fill("7")
    opened.page.get_by_role("button", name="Highlight", exact=True).click()
    expect(note).to_contain_text("highlighted")
    opened.page.get_by_role("combobox", name="Shown").select_option("text")
    expect(note).to_contain_text("192 captions")
    assert "96 images" not in note.inner_text()
    opened.page.get_by_role("combobox", name="Laid out by").select_option("codes")
    opened.until("location.hash.includes('by=codes')")
    expect(opened.page.locator(".layout-note")).to_contain_text("Items with the same concepts")


def test_the_keys_step_show_tick_and_box(open_page, published):
    opened = open_page(published, "#/items")
    page = opened.page
    drawn(opened)
    canvas(opened).focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".map-card")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    opened.until("location.hash.includes('pick=')")
    assert picked(opened) == 1
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Open this item")).to_be_visible()
    page.keyboard.press("0")
    page.keyboard.press("b")
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
    for _ in range(24):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Selection").get_by_role("heading", level=2)).not_to_have_text(
        "1 item selected"
    )
    assert picked(opened) > 20


def test_lasso_and_box_select_and_the_address_keeps_it(open_page, published, shot):
    opened = open_page(published, "#/items")
    page = opened.page
    drawn(opened)
    page.get_by_role("button", name="Lasso").click()
    drag(opened, around(opened, 0.2))
    by_lasso = picked(opened)
    assert 0 < by_lasso <= ITEMS
    url = page.url
    assert f"pick={ITEMS}_" in url
    page.reload()
    drawn(opened)
    assert picked(opened) == by_lasso
    page.get_by_role("button", name="Box", exact=True).click()
    corners = around(opened, 0.02)
    drag(opened, [corners[0], corners[2]])
    assert picked(opened) >= by_lasso
    shot(opened, "items-lasso")
    page.locator(".ticks input").first.click()  # the list is then drawn again, without this item
    assert page.url != url
    page.get_by_role("button", name="Clear the selection").click()
    opened.until("!location.hash.includes('pick=')")
    expect(page.get_by_role("complementary", name="Item and selection")).to_be_hidden()


def test_a_selection_leaves_as_csv_and_as_a_query(open_page, published):
    opened = open_page(published, f"#/items?pick={ITEMS}_5.1*2.2k.1")  # 5, 6, 7: images; 99, 100: captions
    page = opened.page
    drawn(opened)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [(row["modality"], row["item_id"]) for row in rows] == [
        ("image", "5"), ("image", "6"), ("image", "7"), ("text", "3"), ("text", "4"),
    ]  # fmt: skip
    assert all((row["caption"] != "") == (row["modality"] == "text") for row in rows)
    page.get_by_role("button", name="As a query").click()
    text = page.get_by_label("The selection as a query").input_value()
    assert "image_id IN (5, 6, 7)" in text
    assert "pair_id IN (3, 4)" in text
    assert page.get_by_role("button", name="Parquet").count() == 0  # this needs a server


def test_a_cluster_shares_the_concepts_that_fire_on_it(open_page, published):
    """Planted: concept c fires on the items of cluster c modulo 8 and on no others."""
    opened = open_page(published, "#/items?concept=3")
    page = opened.page
    drawn(opened)
    lit = page.evaluate(
        """async () => {
            const bytes = await (await fetch('data/runs/planted/main/0/codes/firings-0.bin')).arrayBuffer()
            const start = new Uint32Array(bytes, 0, 65)
            return [...new Uint32Array(bytes, 4 * 65 + 4 * start[3], start[4] - start[3])]
        }"""
    )
    steps = [lit[0], *(b - a for a, b in itertools.pairwise(lit))]
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    in_36 = [digits[n // 36 % 36] + digits[n % 36] for n in steps]
    page.evaluate(f"location.hash += '&pick={ITEMS}_{'.'.join(in_36)}'")
    shared = page.locator(".shared")
    expect(shared.locator("li").first).to_be_visible()
    numbers = {int(text[1:]) % 8 for text in shared.locator(".id").all_inner_texts()}
    assert numbers == {3}
    expect(shared.locator(".value").first).to_have_text("100% / 0%")


def test_a_site_without_items_has_no_map_of_items(open_page, without_items):
    opened = open_page(without_items, "#/items")
    expect(opened.page.get_by_text("The view Items needs captions and images")).to_be_visible()
    opened.visit("#/map?sel=20")
    assert opened.page.get_by_role("link", name="Highlight its items").count() == 0


def test_the_page_computes_what_the_macro_says(open_page, live):
    """The concepts of a selection, from the published firings, are those of `concept_shift` in SQL."""
    opened = open_page(live, "#/items?pick=5545_5.1*300")
    page = opened.page
    drawn(opened)
    expect(page.locator(".shared li").first).to_be_visible()
    shown = [int(text[1:]) for text in page.locator(".shared .id").all_inner_texts()]
    ids = page.evaluate(
        """async () => {
            const {maps} = await (await fetch('data/manifest.json')).json()
            const map = maps.find(({model, by}) => model === 'emoji-clip' && by === 'embeddings')
            const bytes = await (await fetch(map.ids)).arrayBuffer()
            return [...new Float64Array(bytes, 0, map.items)].slice(5, 306)
        }"""
    )
    chosen = ", ".join(str(int(item)) for item in ids)
    query = (
        f"SELECT concept_id FROM concept_shift('emoji-clip', 'main', 0, 'image', [{chosen}], (SELECT list(image_id) "
        f"FROM images WHERE image_id NOT IN ({chosen}))) WHERE shifted AND energy_difference > 0"
    )
    answer = page.evaluate(
        """async (query) => (await fetch('api/sql', {method: 'POST', headers: {'Content-Type': 'application/json'},
            body: JSON.stringify({query})})).json()""",
        query,
    )
    assert shown == [row[0] for row in answer["rows"]][: len(shown)]
    assert shown


def test_live_a_selection_becomes_a_query_and_parquet(open_page, live):
    opened = open_page(live, "#/items?pick=5545_5.1*2")
    page = opened.page
    drawn(opened)
    with page.expect_download() as download:
        page.get_by_role("button", name="Parquet").click()
    table = pq.read_table(download.value.path())
    assert table.num_rows == 3
    assert set(table["modality"].to_pylist()) == {"image"}
    page.get_by_role("button", name="As a query").click()
    opened.heading("SQL")
    expect(page.locator(".answer tbody tr")).to_have_count(3)
