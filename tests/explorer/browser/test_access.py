"""axe-core finds nothing serious in any view: light and dark, desktop, tablet and phone, and at 200 % zoom."""

from __future__ import annotations

import pytest
from browser_support import DESKTOP, PHONE, TABLET, TWICE

VIEWS = ("#/map?sel=20", "#/map?as=list", "#/concept/20", "#/bridges", "#/item/i20", "#/item/t41", "#/compare",
         "#/search?q=teal", "#/files", "#/sql", "#/nothing?run=none")  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_no_serious_finding(open_page, published, shot, view, scheme):
    opened = open_page(published, view, color_scheme=scheme)
    for size in (DESKTOP, TWICE, TABLET, PHONE):
        opened.page.set_viewport_size(size)
        opened.settled()
        opened.fits()
        assert opened.serious() == []
    opened.page.set_viewport_size(DESKTOP)
    opened.settled()
    shot(opened, f"{scheme}-{view[2:].split('?')[0].replace('/', '-')}")


@pytest.mark.parametrize("view", ["#/sql", "#/sql?q=SELEC", "#/try", "#/try?text=a red heart", "#/compare"])
def test_no_serious_finding_live(open_page, live, shot, view):
    opened = open_page(live, view)
    if "?" in view:
        opened.page.locator(".answer > *").first.wait_for()
    for size in (DESKTOP, TABLET, PHONE):
        opened.page.set_viewport_size(size)
        opened.settled()
        opened.fits()
        assert opened.serious() == []
    shot(opened, f"live-phone-{view[2:].split('?')[0]}")
    if "SELEC" in view:  # the browser logs the status of the refused statement as an error
        assert all("400" in error for error in opened.errors), opened.errors
        opened.errors.clear()


def test_the_first_tab_skips_to_the_content(open_page, published):
    opened = open_page(published, "#/bridges")
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert "#/bridges" in page.url


def test_everything_that_is_clicked_is_reached_by_tab(open_page, published):
    opened = open_page(published, "#/bridges")
    page = opened.page
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.className || '')"))
    for wanted in ("A brand", "BUTTON icon-button theme", "A concept-link"):
        assert wanted in reached
    assert {"SELECT ", "INPUT "} <= reached
