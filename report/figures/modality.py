"""Modality of concepts: the histogram of the modality score, and alignment against that score.

The alignment of a concept is its cosine with a direction that separates images from captions. For a subspace (INLP) it
is the length of the projection.
"""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator

from report.drawing import FIRST, IMAGE, MUTED, PAPER, SECOND, TEXT, THIRD, Draw, Drawn, LegendKey, Panel, say, short
from report.figures.runs import Runs, columns_for, models_of, titled
from report.queries import MIN_FIRINGS, UNIMODAL, Answer, Row

SUBSPACES = {
    "mean_gap": "difference of means",
    "logistic": "logistic normal",
    "lda": "LDA normal",
    "inlp": "INLP subspace",
}
SMALLEST, LARGEST = 3.0, 13.0  # diameters of marks, in points
ENDS = (
    LegendKey("unimodal: text", TEXT, filled=True, opacity=0.2),
    LegendKey("unimodal: image", IMAGE, filled=True, opacity=0.2),
)


def histograms(answer: Answer, runs: Runs) -> Drawn | None:
    """The histogram of the modality score, by share of concepts and by share of energy; None without SAEs."""
    if not runs:
        return None
    top = 1.06 * max((max(row["share"] or 0, row["energy_share"] or 0) for row in answer.rows), default=1) or 1
    panels, left_out = [], []
    for model, sae, title in titled(runs):
        rows = answer.of(model=model, sae=sae)
        counted, out = sum(row["concepts"] for row in rows), rows[0]["left_out"] if rows else 0
        left_out.append(f"{title}: {counted} concepts counted, {out} left out")
        label = f"Histogram of the modality scores of {title}: {counted} concepts counted, {out} left out."
        panels.append(Panel(_histogram(rows, top, f"{counted} concepts counted, {out} left out"), title, label))
    caption = (
        f"Modality score (0 text, 1 image) of the concepts with at least {MIN_FIRINGS} firings, all seeds together. "
        f"Dotted lines: the unimodal thresholds {UNIMODAL} and {1 - UNIMODAL}. {'; '.join(left_out)}."
    )
    keys = [LegendKey("share of concepts", FIRST, filled=True), LegendKey("share of their energy", SECOND), *ENDS]
    return Drawn("modality", panels, keys, caption, answer.sql, columns_for(runs))


def _histogram(rows: list[Row], top: float, counts: str) -> Draw:
    def draw(axes: Axes) -> None:
        if not any(row["concepts"] for row in rows):
            say(axes, counts)
        elif rows:
            edges = [row["low"] for row in rows] + [rows[-1]["high"]]
            axes.stairs([row["share"] or 0 for row in rows], edges, fill=True, color=FIRST, alpha=0.55, linewidth=0)
            axes.stairs([row["energy_share"] or 0 for row in rows], edges, color=SECOND, linewidth=1.6)
        axes.set(ylim=(0, top), ylabel="share")
        axes.yaxis.set_major_formatter(FuncFormatter(short))
        _score_axis(axes)

    return draw


def _score_axis(axes: Axes) -> None:
    """Set the x axis to the modality score, with lines at the unimodal thresholds and shades beyond them."""
    for threshold, end, color in ((UNIMODAL, 0, TEXT), (1 - UNIMODAL, 1, IMAGE)):
        axes.axvline(threshold, color=MUTED, linewidth=0.8, linestyle=":", zorder=0.5)
        axes.axvspan(threshold, end, color=color, alpha=0.12, linewidth=0, zorder=0.4)
    axes.set(xlim=(0, 1), xlabel="modality score (0 text, 1 image)")
    axes.xaxis.set_major_formatter(FuncFormatter(short))


def alignments(answer: Answer, nulls: Answer, runs: Runs, most: int) -> Drawn | None:
    """Alignment of concepts with the subspaces that separate the modalities, against modality score.

    answer: rows (model, concept_id, energy, modality_score, counted, subspace, alignment) of the `most` concepts with
    the largest energy. nulls: rows (model, subspace, mean, low, high) of |alignment| of random directions. Returns None
    if no subspace was computed.
    """
    answer, nulls = answer.known("alignment", "modality_score"), nulls.known("low", "high")
    subspaces = [name for name in SUBSPACES if answer.of(subspace=name)]
    models = [model for model in models_of(runs) if answer.of(model=model)]
    if not subspaces:
        return None
    panels, notes = [], []
    for model in models:
        first = answer.of(model=model)[0]
        notes.append(f"{model}: {min(first['counted'], most)} of {first['counted']} concepts")
    for subspace in subspaces:
        for model in models:
            rows = answer.of(model=model, subspace=subspace)
            null = nulls.of(model=model, subspace=subspace)
            inside = [row for row in rows if null and abs(row["alignment"]) <= null[0]["high"]]
            label = (
                f"Alignment with the {SUBSPACES[subspace]} against modality score of {len(rows)} concepts of {model}"
            )
            label += f"; {len(inside)} within the range of random directions." if null else "."
            title = f"{model}: {SUBSPACES[subspace]}"
            panels.append(Panel(_alignment(rows, null, subspace == "inlp"), title, label, (4.9, 2.6)))
    sae = next(sae for _, sae in runs)
    caption = (
        f"One mark per concept of SAE {sae}, first seed, with at least {MIN_FIRINGS} firings; its area is proportional "
        "to the energy, except for the smallest marks. Alignment is the cosine with the direction that separates "
        "images (+) from captions (−); for INLP it is the length of the part inside the subspace, which has no sign. "
        f"{'; '.join(notes)}, those with most energy."
    )
    keys = [LegendKey("concept, area its energy", FIRST, marker="o", line=False), *ENDS]
    if nulls.rows:
        caption += (
            " Grey: the range of random directions, up to the 97.5 % quantile of |alignment|; for INLP it starts at "
            "the 2.5 % quantile."
        )
        keys.append(LegendKey("random directions", THIRD, filled=True, opacity=0.25))
    return Drawn("alignment", panels, keys, caption, [answer.sql, nulls.sql], len(models) if len(models) < 4 else 2)


def _alignment(rows: list[Row], null: list[Row], unsigned: bool) -> Draw:
    def draw(axes: Axes) -> None:
        if null:
            low = null[0]["low"] if unsigned else -null[0]["high"]
            axes.axhspan(low, null[0]["high"], color=THIRD, alpha=0.25, linewidth=0)
        by_size: dict[float, list[Row]] = {}
        largest = max((row["energy"] or 0 for row in rows), default=0) or 1
        for row in rows:
            diameter = max(SMALLEST, LARGEST * math.sqrt((row["energy"] or 0) / largest))
            # marks of equal size share one shape, which makes the SVG ten times smaller
            by_size.setdefault(round(2 * diameter) / 2, []).append(row)
        for diameter, marks in sorted(by_size.items(), reverse=True):
            axes.plot(
                [row["modality_score"] for row in marks], [row["alignment"] for row in marks], linestyle="none",
                marker="o", markersize=diameter, color=FIRST, alpha=0.55, markeredgecolor=PAPER, markeredgewidth=0.5,
                clip_on=False,
            )  # fmt: skip
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(ylim=(0, 1) if unsigned else (-1, 1), ylabel="|alignment|" if unsigned else "alignment")
        axes.yaxis.set_major_locator(MultipleLocator(0.25 if unsigned else 0.5))
        axes.yaxis.set_major_formatter(FuncFormatter(short))
        _score_axis(axes)
        axes.set_xlim(-0.03, 1.03)

    return draw
