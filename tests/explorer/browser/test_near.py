"""What lies near a concept, labels of users, concepts side by side, findings on a phone, and the page as a file."""

from __future__ import annotations

import re

import numpy as np
import pytest
from browser_support import DESKTOP, DIST, PHONE, TABLET, Opened
from plant_explorer import DIM
from playwright.sync_api import expect

BOXES = "() => [...document.querySelectorAll('.findings .verdict')].map((one) => one.getBoundingClientRect().toJSON())"
SIZES = pytest.mark.parametrize("size", [PHONE, TABLET, DESKTOP], ids=["phone", "tablet", "desktop"])


@SIZES
def test_a_concept_shows_its_levels_and_what_lies_near(open_page, live, shot, size):
    opened = open_page(live, "#/concept/12", viewport=size)
    page = opened.page
    page.locator(".levels").scroll_into_view_if_needed()
    expect(page.get_by_role("heading", name="Weakest firings, just above the threshold")).to_be_visible()
    page.locator(".similar").scroll_into_view_if_needed()
    expect(page.locator(".similar li")).to_have_count(6)
    page.locator(".together").scroll_into_view_if_needed()
    assert page.locator(".together li").count() >= 1
    page.get_by_role("heading", name="In other models").scroll_into_view_if_needed()
    expect(page.locator(".matches", has_text="emoji-siglip")).to_contain_text("chance")
    opened.settled()
    page.locator(".concept-facts h2", has_text="Numbers").scroll_into_view_if_needed()
    expect(page.get_by_role("heading", name="Its setting and its frozen twins")).to_be_attached()
    opened.settled()
    opened.fits()
    assert opened.serious() == []
    shot(opened, f"near-{size['width']}")


def test_a_concept_of_a_consensus_sae_says_how_many_seeds_hold_it(open_page, published, shot):
    opened = open_page(published, "#/map")
    page = opened.page

    def joined(route):
        details = route.fetch().json()
        details["0"]["members"] = [{"key": "planted/main/1", "concept": 5, "cosine": 0.875}]
        route.fulfill(json=details)

    page.route("**/runs/planted/main/0/concept/0.json", joined)
    opened.visit("#/concept/0?run=planted/main/0")
    section = page.locator(".block", has=page.get_by_role("heading", name="In the seeds that it joins"))
    expect(section).to_contain_text("Held by 1 of the 2 seeds of main.")
    expect(section).to_contain_text("0.88")
    opened.settled()
    assert opened.serious() == []
    shot(opened, "consensus")
    section.get_by_role("link", name="seed 1, concept 5").press("Enter")
    expect(page.locator(".concept-title")).to_contain_text("Concept 5 of planted, main, seed 1.")


def test_items_just_below_the_threshold_are_shown_after_a_click(open_page, live, published):
    opened = open_page(live, "#/concept/12")
    page = opened.page
    page.get_by_role("button", name="Show the items").focus()
    page.keyboard.press("Enter")
    below = page.locator(".below")
    expect(below.locator(".pictures li")).to_have_count(6)
    expect(below.locator(".captions li")).to_have_count(6)
    opened.settled()
    assert opened.serious() == []
    firing = page.locator(".concept-items .pictures").first.locator("a").evaluate_all("all => all.map((a) => a.href)")
    silent = below.locator(".pictures a").evaluate_all("all => all.map((a) => a.href)")
    assert not set(firing) & set(silent)
    assert open_page(published, "#/concept/12").page.locator(".below").count() == 0  # it needs the SAE and all items


@pytest.mark.parametrize("site", ["live", "published_demo"])
def test_the_study_page_and_the_explorer_lead_to_each_other(open_page, request, site, shot):
    opened = open_page(request.getfixturevalue(site), "#/compare")
    page = opened.page
    page.get_by_role("link", name="study page").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.locator("figure svg").count() > 5  # its styles and figures are allowed by the policy
    assert page.locator("main").evaluate("main => getComputedStyle(main).maxWidth") != "none"
    shot(opened, f"study-page-{site}")
    link = page.locator(".bridge .concept a").first
    concept = link.inner_text()
    link.click()
    expect(page.locator(".concept-page")).to_be_visible()
    assert f"#/concept/{concept}?" in page.url
    assert opened.elsewhere == []


def test_saes_of_two_settings_stand_side_by_side_by_their_directions(open_page, published, folder):
    opened = open_page(published, "#/map")
    page = opened.page

    def other_setting(route):
        manifest = route.fetch().json()
        manifest["runs"][1]["sae"] = "wide"
        route.fulfill(json=manifest)

    page.route("**/data/manifest.json", other_setting)
    page.goto("about:blank")
    opened.visit("#/compare?run=planted/main/0&with=planted/main/1&concept=12")
    page.locator(".side-by-side").scroll_into_view_if_needed()
    first = page.locator(".side-by-side li").first
    expect(first).to_contain_text("#12")
    rows = [
        np.fromfile(folder / f"data/runs/planted/main/{seed}/dictionary.bin", "<f2").astype(float).reshape(-1, DIM)
        for seed in (0, 1)
    ]
    cosines = rows[1][:-3] @ rows[0][12]  # the last three rows are the bias and the two means
    expect(first.locator(".likeness")).to_have_text(f"{cosines.max():.2f}".replace("-", "−"))
    expect(first.locator("a").last).to_have_attribute("href", re.compile(rf"#/concept/{cosines.argmax()}\?"))
    expect(page.get_by_text("with the nearest direction, and the cosine of the two")).to_be_visible()


def test_a_label_of_the_users_is_shown_everywhere_and_removed(open_page, live):
    opened = open_page(live, "#/concept/12")
    page = opened.page
    page.get_by_text("Give it a label of your own").click()
    page.get_by_label("Label", exact=True).fill("<b>mine</b>")
    page.keyboard.press("Enter")
    opened.heading("<b>mine</b>")
    opened.visit("#/search?q=mine")
    expect(page.locator(".found .concept-name").first).to_have_text("<b>mine</b>")
    again = open_page(live, "#/concept/12")
    again.heading("<b>mine</b>")
    expect(again.page.locator(".concept-title")).to_contain_text("a label that a user gave")
    again.page.get_by_role("button", name="Remove it").click()
    expect(again.page.locator(".concept-title")).to_contain_text("automatic")


def test_another_model_keeps_the_concept_by_its_partner(open_page, live, shot):
    opened = open_page(live, "#/concept/12")
    page = opened.page
    page.get_by_label("model").select_option("emoji-siglip")
    expect(page.locator(".counterpart")).to_contain_text("The partner of concept 12 of emoji-clip/main/0")
    assert "run=emoji-siglip/main/0" in page.url
    page.locator(".counterpart a").press("Enter")
    opened.until("location.hash.startsWith('#/concept/12?run=emoji-clip')")
    opened.visit("#/concept/none?run=emoji-siglip/main/0&from=emoji-clip/main/0&of=12")
    opened.heading("No partner in emoji-siglip/main/0")


@SIZES
def test_two_runs_stand_side_by_side(open_page, live, shot, size):
    opened = open_page(live, "#/compare?with=emoji-siglip/main/0&concept=12", viewport=size)
    page = opened.page
    page.locator(".side-by-side").scroll_into_view_if_needed()
    first = page.locator(".side-by-side li").first
    expect(first).to_contain_text("#12")
    expect(first).to_contain_text("chance")
    page.get_by_label("Concepts of emoji-clip/main/0 next to").select_option("emoji-clip/main/1")
    opened.until("location.hash.includes('with=emoji-clip/main/1')")
    opened.settled()
    page.locator(".side-by-side").scroll_into_view_if_needed()
    expect(page.locator(".side-by-side li").first).to_contain_text("#12")
    opened.fits()
    assert opened.serious() == []
    shot(opened, f"side-by-side-{size['width']}")


@SIZES
def test_every_verdict_is_readable_without_scrolling_sideways(open_page, live, shot, size):
    opened = open_page(live, "#/compare", viewport=size)
    page = opened.page
    verdicts = page.locator(".findings .verdict")
    assert verdicts.count() >= 20
    if size is PHONE:
        for box in page.evaluate(BOXES):
            assert box["left"] >= 0
            assert box["right"] <= size["width"]
    rule = page.locator(".rule").first
    words = rule.get_by_role("tooltip", include_hidden=True)
    expect(words).to_be_hidden()
    rule.focus()
    expect(words).to_be_visible()
    expect(words).to_contain_text("Rule:")
    shot(opened, f"findings-{size['width']}")
    opened.fits()
    assert opened.serious() == []
    page.locator("h1").focus()
    rule.hover()
    expect(words).to_be_visible()


def test_a_concept_on_a_phone_opens_as_a_sheet_in_view(open_page, published, shot):
    opened = open_page(published, "#/map?sel=5", viewport=PHONE)
    opened.drawn()
    panel = opened.page.get_by_role("complementary", name="Selected concept")
    expect(panel).to_be_in_viewport()
    expect(panel.get_by_role("link", name="Open this concept")).to_be_in_viewport()
    shot(opened, "sheet")
    panel.get_by_role("button", name="Close the panel").press("Enter")
    expect(panel).to_be_hidden()


def test_index_html_opened_as_a_file_says_what_to_do(chromium):
    opened = Opened(chromium, DIST.joinpath("index.html").as_uri())
    opened.page.goto(opened.address)
    expect(opened.page.get_by_role("heading", name="This page needs a web server")).to_be_visible()
    expect(opened.page.locator("main")).to_contain_text("python -m http.server")
    opened.close()


def test_the_served_page_does_not_show_what_is_said_to_a_file(open_page, published):
    opened = open_page(published, "#/bridges")
    expect(opened.page.locator(".unserved")).to_have_count(0)
