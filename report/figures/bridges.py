"""Bridges: the matrix of the concepts with the largest bridges, and the strongest bridges as images and captions."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from report.drawing import FIRST, INK, LINE, MUTED, SECOND, Draw, Drawn, LegendKey, Panel
from report.exhibits import Bridge, Exhibit
from report.queries import Answer, Row
from report.wording import number

SCORES = (("bridge", "bridge"), ("correlation_bridge", "correlation"))
SHOWN = 6  # bridges per file
WIDTH, HEIGHT, ABOVE, SIDE = 9.8, 1.22, 0.3, 0.72  # inches: width of a figure; height of a bridge, title, picture


def matrices(answers: Sequence[tuple[str, Answer]], sae: str, cells: int) -> Drawn | None:
    """Matrices of raw bridges and of correlation bridges, two panels per model. None if there are no bridges.

    answers: (model, answer) with the columns image_concept, text_concept, bridge, correlation_bridge, image_score and
    text_score. cells: how many image concepts and how many text concepts a matrix shows; those with the largest
    bridges are chosen.
    """
    answers = [(model, answer) for model, answer in answers if answer.rows]
    panels = []
    for model, answer in answers:
        for score, title in SCORES:
            rows = [row for row in answer.rows if row[score] is not None]
            top = max(rows, key=lambda row: abs(row[score]), default=None)
            if top is None or top[score] == 0:
                continue
            largest = abs(top[score])
            label = (
                f"Matrix of {title} of {model}, {len(rows)} cells; the largest joins image concept "
                f"{top['image_concept']} and text concept {top['text_concept']}."
            )
            heading = f"{model}: {title}, up to {number(largest, max(2, 1 - math.floor(math.log10(largest))))}"
            panels.append(Panel(_matrix(answer.rows, score, largest), heading, label, (4.9, 4.7)))
    if not panels:
        return None
    caption = (
        f"The {cells} image concepts and {cells} text concepts with the largest bridges of SAE {sae}, first seed, each "
        "side from image (modality score 1) to text (0). The depth of the colour is proportional to the square root of "
        "the number. Empty: too few pairs on which both fire. Framed: the same concept on both sides."
    )
    keys = [
        LegendKey("positive", FIRST, filled=True, opacity=0.9),
        LegendKey("negative", SECOND, filled=True, opacity=0.9),
        LegendKey("the same concept", INK, marker="s", line=False, hollow=True),
    ]
    return Drawn("bridge-matrix", panels, keys, caption, [answer.sql for _, answer in answers], 2)


def _matrix(rows: list[Row], score: str, largest: float) -> Draw:
    def draw(axes: Axes) -> None:
        images = _from_image_to_text(rows, "image")
        texts = _from_image_to_text(rows, "text")
        for row in rows:
            x, y = texts.index(row["text_concept"]), images.index(row["image_concept"])
            if row[score]:
                color, depth = FIRST if row[score] > 0 else SECOND, math.sqrt(abs(row[score]) / largest)
                cell = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, alpha=round(depth, 3), linewidth=0)
                axes.add_patch(cell)
        for x, concept in enumerate(texts):
            if concept in images:
                corner = (x - 0.5, images.index(concept) - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=0.9))
        axes.set_xticks(range(len(texts)), [str(concept) for concept in texts], rotation=90)
        axes.set_yticks(range(len(images)), [str(concept) for concept in images])
        axes.tick_params(labelsize=7, length=0, pad=2)
        axes.set_aspect("equal")
        axes.set(xlim=(-0.5, len(texts) - 0.5), ylim=(len(images) - 0.5, -0.5))
        axes.set(xlabel="text concept", ylabel="image concept")
        for side in axes.spines.values():
            side.set(visible=True, color=LINE)

    return draw


def _from_image_to_text(rows: list[Row], side: str) -> list[int]:
    scores = {row[f"{side}_concept"]: row[f"{side}_score"] for row in rows}
    return sorted(scores, key=lambda concept: (-(scores[concept] or 0.0), concept))


def cards(exhibit: Exhibit) -> Drawn | None:
    """The strongest bridges of one SAE as pictures and captions, for a figure file. The page has cards instead."""
    shown = exhibit.lists[0].bridges[:SHOWN] if exhibit.lists else []
    if not shown:
        return None
    digits = exhibit.lists[0].digits
    title = f"{exhibit.model}, {exhibit.sae}, seed {exhibit.seed}: top {len(shown)} by bridge"
    panel = Panel(_cards(shown, digits), title, title, (WIDTH, 0.3 + HEIGHT * len(shown)))
    return Drawn(f"bridges-{exhibit.model}", [panel], [], "", exhibit.lists[0].sql, 1)


def _cards(bridges: list[Bridge], digits: int) -> Draw:
    def draw(axes: Axes) -> None:
        axes.axis("off")
        for place, bridge in enumerate(bridges):
            top = place * HEIGHT
            axes.plot([0, WIDTH], [top, top], color=LINE, linewidth=0.8)
            _pictures(axes, bridge, top)
            _numbers(axes, bridge, top, digits)
            _captions(axes, bridge, top)
        axes.set(xlim=(0, WIDTH), ylim=(HEIGHT * len(bridges), 0))

    return draw


def _pictures(axes: Axes, bridge: Bridge, top: float) -> None:
    """Draw the image concept and the images on which it fires most; an image without a picture is shown by its key."""
    _write(axes, 0, top + 0.2, f"image concept {bridge.image.id}", weight="bold")
    _write(axes, 1.5, top + 0.2, f"modality {bridge.image.score}", color=MUTED)
    for column, item in enumerate(bridge.image.items):
        left, upper = column * (SIDE + 0.06), top + ABOVE
        if item["picture"] is None:
            _write(axes, 0, upper + 0.15 * (column + 1), _cut(f"{item['source_key']} {item['caption'] or ''}", 60))
            continue
        with Image.open(io.BytesIO(base64.b64decode(item["picture"].partition(",")[2]))) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        scale = SIDE / max(pixels.shape[:2])
        height, width = pixels.shape[0] * scale, pixels.shape[1] * scale
        # interpolation="none" keeps the original pixels in the SVG; the default resamples them to 72 dots per inch
        axes.imshow(pixels, extent=(left, left + width, upper + height, upper), interpolation="none", aspect="auto")


def _numbers(axes: Axes, bridge: Bridge, top: float, digits: int) -> None:
    lines = (
        ("bridge", number(bridge.numbers["bridge"], digits)),
        ("covariance", number(bridge.numbers["covariance_bridge"], digits)),
        ("correlation", number(bridge.numbers["correlation_bridge"])),
        ("cosine", number(bridge.numbers["cosine"])),
        ("pairs", str(bridge.numbers["pairs"])),
    )
    for line, (name, value) in enumerate(lines):
        y = top + 0.2 + 0.18 * line
        _write(axes, 4.85, y, name, color=MUTED)
        _write(axes, 6.35, y, value, weight="bold" if line == 0 else "normal", ha="right")


def _captions(axes: Axes, bridge: Bridge, top: float) -> None:
    _write(axes, 6.7, top + 0.2, f"text concept {bridge.text.id}", weight="bold")
    _write(axes, 8.1, top + 0.2, "the same concept" if bridge.own else f"modality {bridge.text.score}", color=MUTED)
    for line, item in enumerate(bridge.text.items):
        _write(axes, 6.7, top + ABOVE + 0.13 + 0.17 * line, _cut(item["caption"], 48))


def _write(axes: Axes, x: float, y: float, text: str, **style: object) -> None:
    axes.text(x, y, text, fontsize=8.5, va="baseline", clip_on=True, **style)  # type: ignore[arg-type]


def _cut(text: str, length: int) -> str:
    """The text as one line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
