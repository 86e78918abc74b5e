"""The map: its drawing, its filters, its use by pointer and by keys, and its state in the address."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from browser_support import DESKTOP, PHONE, TABLET, Opened
from PIL import Image
from playwright.sync_api import expect

MAP = "Map of concepts. Arrow keys step from dot to dot"


def canvas(opened: Opened):
    """The element that receives pointer and key events."""
    return opened.page.get_by_role("application", name=re.compile(re.escape(MAP)))


def changed(one: bytes, other: bytes) -> int:
    """The number of pixels in which two screenshots differ."""
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16) for data in (one, other))
    return int((np.abs(a - b).max(2) > 8).sum())


def colour_at(opened: Opened, x: float, y: float) -> np.ndarray:
    """Red, green and blue of a pixel of the window."""
    return np.asarray(Image.open(io.BytesIO(opened.page.screenshot())).convert("RGB"), np.int16)[round(y), round(x)]


def to_a_dot(opened: Opened) -> tuple[str, float, float]:
    """Step to a dot with the keys and release it. Returns its number and its position."""
    opened.drawn()
    page = opened.page
    canvas(opened).focus()
    page.keyboard.press("ArrowRight")
    number = page.locator(".map-card .id").inner_text()
    page.wait_for_timeout(400)  # milliseconds, until the camera has stopped
    ring = page.locator(".map-ring").bounding_box()
    assert ring is not None
    page.keyboard.press("Escape")
    expect(page.locator(".map-card")).to_be_hidden()
    return number, ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2


def test_a_dot_under_the_pointer_shows_its_card_and_a_click_selects_it(open_page, published, shot):
    opened = open_page(published, "#/map")
    page = opened.page
    number, x, y = to_a_dot(opened)
    page.mouse.move(x - 60, y - 60)
    page.mouse.move(x, y, steps=4)
    card = page.locator(".map-card")
    expect(card).to_be_visible()
    expect(card.locator(".id")).to_have_text(number)
    expect(card.locator("img").first).to_be_visible()
    shot(opened, "map-hover")
    page.mouse.click(x, y)
    panel = page.get_by_role("complementary", name="Selected concept")
    expect(panel.locator(".panel-head .id")).to_have_text(number)
    expect(panel.locator(".pictures img").first).to_be_visible()
    assert f"sel={number[1:]}" in page.url
    shot(opened, "map-selected")
    page.go_back()
    expect(panel).to_be_hidden()
    page.go_forward()
    panel.locator(".partners a").first.click()
    opened.heading()
    assert "#/concept/" in page.url


def test_filters_narrow_the_map_and_stand_in_the_address(open_page, published):
    opened = open_page(published, "#/map")
    page = opened.page
    status = page.locator(".map-note")
    expect(status).to_have_text("160 concepts")
    least = page.get_by_role("slider", name="modality: text to image, at least")
    least.focus()
    for _ in range(5):
        page.keyboard.press("PageUp")
    expect(status).to_have_text(re.compile(r"^\d+ of 160 concepts"))
    narrowed = status.inner_text()
    assert "modality=" in page.url
    page.reload()
    expect(status).to_have_text(narrowed)
    page.get_by_role("button", name="List").click()
    scores = page.locator(".map-list tbody td:nth-child(3)").all_inner_texts()
    assert scores
    assert min(map(float, scores)) >= 0.2
    page.get_by_role("button", name="Reset the filters").click()
    page.get_by_role("button", name="Map", exact=True).click()
    expect(status).to_have_text("160 concepts")


def test_a_filter_that_nothing_passes_shows_a_message(open_page, published):
    opened = open_page(published, "#/map?modality=0.000-0.000&energy=1.000-1.000")
    expect(opened.page.get_by_text("No concept passes these filters")).to_be_visible()


def test_another_seed_keeps_the_camera_the_filters_and_the_concept(open_page, published):
    opened = open_page(published, "#/map?sel=20&at=0.400,0.600,0.500&stability=0.100-1.000")
    page = opened.page
    opened.drawn()
    page.get_by_label("seed").select_option("1")
    opened.until("location.hash.includes('planted/main/1')")
    opened.settled()
    for kept in ("at=0.400,0.600,0.500", "stability=0.100-1.000", "sel=20"):  # a planted match has the same id
        assert kept in page.url, kept
    expect(page.get_by_role("complementary", name="Selected concept").locator(".panel-head .id")).to_have_text("#20")


def test_a_dot_is_drawn_where_the_keys_find_it_unless_it_is_filtered_out(open_page, published):
    opened = open_page(published, "#/map?edges=0")
    _, x, y = to_a_dot(opened)
    drawn = colour_at(opened, x, y)
    opened.page.evaluate("location.hash = location.hash + '&stability=0.999-1.000&modality=0.500-0.501'")
    expect(opened.page.get_by_text("No concept passes these filters")).to_be_visible()
    opened.settled()
    assert np.abs(drawn - colour_at(opened, x, y)).max() > 40


def test_bridges_of_the_map_are_as_many_as_asked(open_page, published):
    opened = open_page(published, "#/map?edges=0")
    page = opened.page
    output = page.get_by_role("group", name="Bridges of the whole map").locator("output")
    expect(output).to_have_text("none")
    slider = page.get_by_role("slider", name="Bridges of the whole map, strongest first")
    slider.focus()
    page.keyboard.press("End")
    expect(output).to_have_text(re.compile(r"^\d+, \|bridge\| ≥ "))
    assert "edges=400" in page.url


def test_bridges_beyond_the_strongest_are_drawn_too(open_page, published):
    opened = open_page(published, "#/map?edges=300")  # sigma.js draws up to 300 bridges as wide lines
    opened.drawn()
    strongest = canvas(opened).screenshot()
    opened.page.evaluate("location.hash = location.hash.replace('edges=300', 'edges=400')")
    opened.until("location.hash.includes('edges=400')")
    opened.settled()
    opened.page.wait_for_timeout(500)
    assert changed(canvas(opened).screenshot(), strongest) > 200  # pixels: a hundred thin lines are added


def test_the_camera_moves_by_keys_and_buttons_and_stands_in_the_address(open_page, published):
    opened = open_page(published, "#/map")
    page = opened.page
    opened.drawn()
    page.get_by_role("button", name="Zoom in").click()
    opened.until("location.hash.includes('at=')")
    canvas(opened).focus()
    page.keyboard.press("0")
    opened.until("!location.hash.includes('at=')")
    page.keyboard.press("+")
    opened.until("location.hash.includes('at=')")


def test_keys_step_from_dot_to_dot_and_select(open_page, published):
    opened = open_page(published, "#/map")
    page = opened.page
    opened.drawn()
    canvas(opened).focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        expect(page.locator(".map-card")).to_be_visible()
    number = page.locator(".map-card .id").inner_text()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Selected concept").locator(".panel-head .id")).to_have_text(number)


def test_the_list_is_sorted_by_the_column_that_is_asked(open_page, published):
    opened = open_page(published, "#/map?as=list")
    page = opened.page
    page.get_by_role("link", name="stability").click()
    expect(page.locator("th[aria-sort]")).to_have_text("stability")
    values = [float(text) for text in page.locator(".map-list tbody td:nth-child(6)").all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert len(values) == 100
    page.get_by_role("button", name="Show 60 more").click()
    expect(page.locator(".map-list tbody tr")).to_have_count(160)


@pytest.mark.parametrize("size", [PHONE, TABLET, DESKTOP], ids=lambda size: str(size["width"]))
def test_a_selection_and_other_columns_open_by_their_address(open_page, published, shot, size):
    opened = open_page(published, "#/map?colour=stability&size=label_auc&pick=3.1*9", viewport=size)
    opened.drawn()
    page = opened.page
    expect(page.get_by_role("complementary", name="Selection")).to_contain_text("10 concepts selected")
    expect(page.locator(".legend")).to_contain_text("stability")
    expect(page.locator(".legend")).to_contain_text("Size: AUC of the best label")
    opened.settled()
    opened.fits()
    assert opened.serious() == []
    shot(opened, f"map-picked-{size['width']}")


def test_no_bridge_is_drawn_until_something_is_selected(open_page, published):
    opened = open_page(published, "#/map")
    opened.drawn()
    expect(opened.page.get_by_role("group", name="Bridges of the whole map").locator("output")).to_have_text("none")
    assert violet(opened) == 0
    opened.page.evaluate("location.hash = '#/map?pick=3.1*9'")
    expect(opened.page.get_by_role("complementary", name="Selection")).to_be_visible()
    opened.settled()
    opened.page.wait_for_timeout(500)
    assert violet(opened) > 50


def violet(opened: Opened) -> int:
    """The number of pixels of the map in about the colour of the lines of selected concepts."""
    shown = np.asarray(Image.open(io.BytesIO(canvas(opened).screenshot())).convert("RGB"), np.int16)
    return int((np.abs(shown[80:] - (0x5A, 0x45, 0xB0)).max(2) < 25).sum())  # below the buttons of the lasso


def test_lasso_box_and_keys_select_concepts(open_page, published):
    opened = open_page(published, "#/map")
    page = opened.page
    opened.drawn()
    at = canvas(opened).bounding_box()
    assert at is not None
    corners = [(at["x"] + 0.3 * at["width"], at["y"] + 0.2 * at["height"])]
    corners.append((at["x"] + 0.8 * at["width"], at["y"] + 0.7 * at["height"]))
    page.get_by_role("button", name="Box", exact=True).click()
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=5)
    page.mouse.up()
    selection = page.get_by_role("complementary", name="Selection")
    expect(selection).to_be_visible()
    boxed = int(selection.get_by_role("heading", level=2).inner_text().split()[0])
    assert 5 < boxed < 160
    page.reload()
    expect(selection).to_contain_text(f"{boxed} concepts selected")
    page.get_by_role("button", name="Clear the selection").click()
    expect(selection).to_be_hidden()
    canvas(opened).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    expect(selection).to_contain_text("1 concept selected")
    page.keyboard.press("b")
    for _ in range(8):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    expect(selection).not_to_contain_text("1 concept selected")


def test_ticks_of_the_list_are_the_selection_and_leave_as_csv(open_page, published):
    opened = open_page(published, "#/map?as=list")
    page = opened.page
    for row in (0, 2):
        page.locator(".map-list tbody input").nth(row).check()
    selection = page.get_by_role("complementary", name="Selection")
    expect(selection).to_contain_text("2 concepts selected")
    with page.expect_download() as download:
        selection.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) == 2
    assert {"concept_id", "energy", "stability", "label"} <= set(rows[0])
    selection.get_by_role("button", name="As a query").click()
    text = page.get_by_label("The selection as a query").input_value()
    assert f"concept_id IN ({rows[0]['concept_id']}, {rows[1]['concept_id']})" in text
    with page.expect_download() as whole:
        page.get_by_role("button", name="Download all rows as CSV").click()
    assert len(whole.value.path().read_text().splitlines()) == 161


def test_names_on_the_map_do_not_overlap(open_page, published):
    opened = open_page(published, "#/map")
    opened.drawn()
    boxes = json.loads(opened.page.locator(".map-labels").get_attribute("data-names") or "[]")
    assert len(boxes) > 5
    for one, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[one + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_colour_and_size_are_chosen_and_stand_in_the_address(open_page, published):
    opened = open_page(published, "#/map")
    page = opened.page
    opened.drawn()
    before = canvas(opened).screenshot()
    page.get_by_role("combobox", name="Colour").select_option("align_mean_gap")
    expect(page.locator(".legend")).to_contain_text("alignment, mean gap")
    page.get_by_role("combobox", name="Size").select_option("stability")
    assert "colour=align_mean_gap" in page.url
    assert "size=stability" in page.url
    assert changed(canvas(opened).screenshot(), before) > 2000
    page.get_by_role("combobox", name="Colour").select_option("label")
    page.get_by_role("combobox", name="Label").select_option("ring")
    expect(page.locator(".legend")).to_contain_text("AUC of ring")
    expect(page.locator(".legend")).to_contain_text("no value")
    assert (
        page.get_by_role("combobox", name="Colour").locator("option", has_text="a query's result").count() == 0
    )  # this needs a server


def test_live_a_query_colours_the_map(open_page, live, shot):
    opened = open_page(live, "#/map?colour=query")
    page = opened.page
    opened.drawn()
    page.get_by_label("A query that returns").fill(
        "SELECT concept_id, firings AS how_often FROM concepts WHERE model = 'emoji-clip' AND sae = 'main' AND seed = 0"
    )
    page.get_by_role("button", name="Colour by its result").click()
    expect(page.locator(".legend")).to_contain_text("how_often")
    shot(opened, "map-query")
    page.get_by_label("A query that returns").fill("SELECT 1 AS a")
    page.get_by_role("button", name="Colour by its result").click()
    expect(page.get_by_role("alert")).to_contain_text("must return the column concept_id")
