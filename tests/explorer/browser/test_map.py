"""The map: its drawing, its filters, its use by pointer and by keys, and its state in the address."""

from __future__ import annotations

import io
import re

import numpy as np
from browser_support import Opened
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
