"""The model card of a study: numbers from the catalog, and escaped markup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from report.card import study_card

Make = Callable[..., Any]


def card(catalog: Make, config: Make, items: bool = True, demo: bool = False, **changes: Any) -> str:
    study = config(models=("one",))
    study["pairs"] |= changes
    return study_card(catalog(models=("one",), whole=True), study, {"one": {"kind": "vectors", "dim": 8}}, items, demo)


def test_it_shows_each_part_with_the_tables_numbers(catalog: Make, config: Make) -> None:
    text = card(catalog, config)
    assert "| main | one | batchtopk | 8 | 16 | 2 |" in text
    assert "| main | one | 0 | 0.700 | 0.600 | 0.800 |" in text  # R2 of images, of captions, and of both together
    assert "6.2\u202f%" in text  # dead concepts: .0625
    stability = next(line for line in text.splitlines() if line.startswith("| main | one | 0 | 1 | 0.600 |"))
    assert float(stability.split("|")[6]) > 0.19  # column 6 is the floor of random dictionaries
    assert "## Findings" in text
    assert "common concepts are stable" in text
    assert "main-half-a" not in text[text.index("## Stability") : text.index("## Findings")]
    assert "the study states none" in text
    assert "25% of the images were held out" in text
    assert 'sae="one/main/0"' in text
    assert "/somewhere/private" not in text
    assert "The demo's models" not in text


def test_a_demo_model_is_one_more_limit(catalog: Make, config: Make) -> None:
    assert "- The demo's models are small encoders" in card(catalog, config, demo=True)


def test_what_a_study_file_says_is_text(catalog: Make, config: Make) -> None:
    text = card(catalog, config, licence="[MIT](javascript:x) <b>|\n# no")
    assert r"\[MIT\](javascript:x) \<b\>\| \# no" in text
    assert "\n# no" not in text


def test_it_says_whether_images_and_captions_are_there(catalog: Make, config: Make) -> None:
    assert "Thumbnails and captions are part" in card(catalog, config)
    assert "No image and no caption is part" in card(catalog, config, items=False)
