"""The page of a pair: what adds up to its similarity, what is left without some concepts, and ranks over a server."""

from __future__ import annotations

import csv
import json
import urllib.request
from pathlib import Path

import pytest
from browser_support import DESKTOP, PHONE, TABLET
from playwright.sync_api import expect

SUM = "() => Number(document.querySelector('[data-sum]').dataset.sum)"
SIMILARITY = "() => Number(document.querySelector('[data-similarity]').dataset.similarity)"
TERMS = """() => [...document.querySelectorAll('.terms li:not(.total) .value')].map((one) =>
    Number(one.textContent.replace('−', '-')))"""


def similarity_of(folder: Path, caption: int) -> float:
    block = json.loads((folder / "data/runs/planted/main/0/pairs/0.json").read_text())
    return float(block["texts"][str(caption)]["similarity"])


@pytest.mark.parametrize("size", [PHONE, TABLET, DESKTOP], ids=["phone", "tablet", "desktop"])
def test_the_shown_terms_sum_to_the_shown_similarity(open_page, published, folder, shot, size):
    opened = open_page(published, "#/pair/7,15", viewport=size)
    page = opened.page
    opened.heading(f"Similarity {similarity_of(folder, 15):.4f}".replace("-", "−"))
    assert page.evaluate(SUM) == pytest.approx(similarity_of(folder, 15), abs=5e-5)
    assert sum(page.evaluate(TERMS)) == pytest.approx(page.evaluate(SIMILARITY), abs=5e-4)  # each is rounded for itself
    shown = page.locator(".terms .total .value").all_inner_texts()
    assert shown[0] == shown[1]
    opened.fits()
    assert opened.serious() == []
    expect(page.get_by_text("A published site cannot count ranks")).to_be_visible()
    shot(opened, f"pair-{size['width']}")


def test_the_terms_and_the_contributions_are_downloads(open_page, published):
    page = open_page(published, "#/pair/7,15").page

    def downloaded(what: str) -> list[list[str]]:
        with page.expect_download() as file:
            page.get_by_role("button", name=f"Download this {what} as CSV").click()
        return list(csv.reader(file.value.path().read_text().splitlines()))

    head, *terms = downloaded("sum")
    assert head == ["term", "value"]
    assert sum(float(value) for _, value in terms) == pytest.approx(page.evaluate(SIMILARITY), abs=1e-9)
    head, *pairs = downloaded("list")
    assert head == ["image_concept", "image_name", "text_concept", "text_name", "contribution"]
    concepts = next(float(value) for term, value in terms if term == "concepts")
    assert sum(float(row[-1]) for row in pairs) == pytest.approx(concepts, abs=1e-9)


def test_a_concept_is_left_out_by_click_by_key_and_by_address(open_page, published):
    opened = open_page(published, "#/pair/7,15")
    page = opened.page
    before = page.evaluate(SIMILARITY)
    first = page.locator(".pair-concepts button").first
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    left = page.evaluate(SIMILARITY)
    assert left != before
    assert page.evaluate(SUM) == pytest.approx(left, abs=1e-9)
    assert "without=" in page.url
    row = page.locator(".what-if tbody tr").first
    expect(row.locator("td")).to_have_count(3)
    expect(row).to_contain_text(" to ")  # the range of random sets
    second = page.locator(".pair-concepts button").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(second).to_be_focused()
    address, both = page.url.split("#")[1], page.evaluate(SIMILARITY)
    again = open_page(published, f"#{address}")
    assert again.page.evaluate(SIMILARITY) == pytest.approx(both)
    expect(again.page.locator('[aria-pressed="true"]')).to_have_count(2)
    again.page.get_by_role("button", name="Put all back").click()
    assert again.page.evaluate(SIMILARITY) == before
    assert "without=" not in again.page.url


def test_an_item_leads_to_its_pair(open_page, published):
    opened = open_page(published, "#/item/i7")
    opened.page.get_by_role("link", name="Why do they match? Caption 2").click()
    opened.heading("Similarity")
    assert "#/pair/7,15" in opened.page.url
    opened.visit("#/item/t15")
    opened.page.get_by_role("link", name="Why do they match?").press("Enter")
    opened.heading("Similarity")


@pytest.mark.parametrize("address", ["#/pair/", "#/pair/7", "#/pair/7,x", "#/pair/99999,15", "#/pair/7,99999"])
def test_an_address_of_no_pair_says_so(open_page, published, address):
    opened = open_page(published, address)
    expect(opened.page.locator(".notice-title")).to_contain_text("no ")


def test_a_pair_of_strangers_needs_the_live_explorer(open_page, published, without_items):
    opened = open_page(published, "#/pair/7,3")
    expect(opened.page.locator(".notice-title")).to_have_text("This pair needs the live explorer")
    bare = open_page(without_items, "#/pair/7,15")
    expect(bare.page.locator(".notice-title")).to_have_text("The view Pair needs captions and images")


def ledger(live: str, key: str, **body: object) -> dict:
    headers = {"origin": live.rstrip("/"), "content-type": "application/json"}
    request = urllib.request.Request(f"{live}api/pair?key={key}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def test_the_page_and_the_server_split_a_pair_alike(open_page, live, shot):
    with urllib.request.urlopen(f"{live}data/items/0.json") as answer:
        caption = json.loads(answer.read())["images"]["3"]["captions"][1]
    opened = open_page(live, f"#/pair/3,{caption}")
    page = opened.page
    expect(page.get_by_text("Computed in this page from published codes")).to_be_visible()
    page.set_default_timeout(90_000)  # the first ranks encode the held-out items
    answer = ledger(live, "emoji-clip/main/0", image=3, caption=caption)
    assert page.evaluate(SIMILARITY) == pytest.approx(answer["similarity"], abs=1e-5)
    assert page.evaluate(TERMS) == pytest.approx(list(answer["terms"].values()), abs=3e-4)
    concept = answer["codes"]["image"]["concept"][0]
    page.locator(".pair-concepts button").first.click()
    expect(page.locator(".what-if tbody tr")).to_have_count(3, timeout=90_000)
    left = ledger(live, "emoji-clip/main/0", image=3, caption=caption, without=[concept])["what_if"]
    assert page.evaluate(SIMILARITY) == pytest.approx(left["after"]["inner"], abs=3e-4)
    cells = page.locator(".what-if tbody tr").nth(0).locator("td").all_inner_texts()
    assert float(cells[1].replace("−", "-")) == pytest.approx(left["after"]["similarity"], abs=3e-4)
    expect(page.locator(".what-if tbody tr").nth(1)).to_contain_text(f"{left['after']['caption']['rank']} of ")
    opened.fits()
    assert opened.serious() == []
    shot(opened, "pair-live")


def test_a_pair_of_the_visitors_own(open_page, live, shot, tmp_path):
    opened = open_page(live, "#/try")
    page = opened.page
    page.set_default_timeout(90_000)  # the first request loads the model
    page.get_by_role("textbox", name="Caption").fill("red heart")
    page.get_by_role("button", name="Try this caption").click()
    page.locator(".codes li").first.wait_for()
    page.locator(".pictures .why").first.click()
    opened.until("location.hash.includes(',own')")
    opened.heading("Similarity")
    assert "text=red+heart" in page.url
    expect(page.locator(".pair-caption")).to_contain_text("red heart")
    assert page.evaluate(SUM) == pytest.approx(page.evaluate(SIMILARITY), abs=5e-5)
    expect(page.locator(".what-if tbody tr")).to_have_count(3, timeout=90_000)
    page.locator(".pair-concepts button").first.click()
    expect(page.locator(".what-if tbody tr").first).to_contain_text(" to ")
    assert page.evaluate(SUM) == pytest.approx(page.evaluate(SIMILARITY), abs=5e-5)
    picture = tmp_path / "own.webp"
    with urllib.request.urlopen(f"{live}thumbs/3.webp") as answer:
        picture.write_bytes(answer.read())
    opened.visit("#/pair/3,3")
    page.get_by_label("This caption with your picture").set_input_files(picture)
    opened.until("location.hash.includes('/own,3')")
    opened.heading("Similarity")
    assert page.evaluate(SUM) == pytest.approx(page.evaluate(SIMILARITY), abs=5e-5)
    expect(page.locator(".what-if tbody tr")).to_have_count(3, timeout=90_000)
    shot(opened, "pair-own")
    opened.page.reload()  # a picture is not part of an address
    expect(page.get_by_label("This caption with your picture")).to_be_visible()
