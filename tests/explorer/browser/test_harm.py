"""Harmful captions and names are shown as text: markup, other writing directions, ten thousand characters."""

from __future__ import annotations

import pytest
from browser_support import BREAKLESS, HARM, LONG, MARKUP, PHONE, RIGHT_TO_LEFT
from playwright.sync_api import expect

PLACES = (
    "#/map?sel=0", "#/map?sel=3", "#/map?as=list", "#/map?pick=0.1*3",
    "#/items?concept=0&sel=0&pick=288_0.1.2n.1*3", "#/concept/0", "#/concept/1", "#/concept/2", "#/concept/3",
    "#/bridges?concept=0", "#/bridges?concept=3", "#/item/i0", "#/item/t0", "#/item/t1", "#/item/t2", "#/item/t3",
    "#/search?q=onerror", "#/search?q=xxxxx", f"#/search?q={MARKUP.replace('&', '%26').replace('#', '%23')}",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_harmful_text_stays_text_and_breaks_nothing(open_page, published, place):
    opened = open_page(published, place)
    page = opened.page
    for size in (None, PHONE):
        if size:
            page.set_viewport_size(size)
        opened.settled()
        opened.fits()
        assert page.evaluate("document.querySelectorAll('img[src=x], main script').length") == 0
        assert "owned" not in page.title() or "onerror" in page.title()


def test_the_whole_text_is_there_and_its_direction_is_its_own(open_page, published):
    opened = open_page(published, "#/concept/0")
    page = opened.page
    captions = page.locator(".captions .said")
    assert captions.all_text_contents() == list(HARM)
    assert page.locator("h1 bdi").text_content() == MARKUP
    assert captions.nth(HARM.index(RIGHT_TO_LEFT)).get_attribute("dir") == "auto"
    for text in (LONG, BREAKLESS):
        box = captions.nth(HARM.index(text)).bounding_box()
        assert box is not None
        assert box["height"] < 100  # pixels: three lines of the text, not two hundred


def test_harmful_text_in_suggestions(open_page, published):
    opened = open_page(published)
    page = opened.page
    page.get_by_role("searchbox").first.fill("onerror")
    expect(page.locator(".suggestions .said").first).to_have_text(MARKUP)
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    opened.fits()
