"""Retrieval: recall after every intervention on concepts, beside the recall of the unchanged embeddings."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from report.drawing import FIRST, LINE, MUTED, PAPER, SECOND, Draw, Drawn, LegendKey, Panel, short
from report.figures.runs import Runs, columns_for, titled
from report.queries import Answer, Row

INTERVENTIONS = {
    "embeddings": "embeddings",
    "mean_removed": "modality means removed",
    "reconstructions": "reconstructions",
    "without_unimodal": "without unimodal",
    "random_for_unimodal": "  random, as much energy",
    "without_bimodal": "without bimodal",
    "random_for_bimodal": "  random, as much energy",
    "without_aligned": "without most aligned",
    "random_for_aligned": "  random, as much energy",
    "only_bridging": "only top bridges",
}
DIRECTIONS = (("image_to_text", FIRST, "o", -0.16), ("text_to_image", SECOND, "s", 0.16))


def interventions(answer: Answer, runs: Runs) -> Drawn | None:
    """R@1 in both directions after every intervention, one panel per SAE; None without interventions on an SAE."""
    answer = answer.known("r1", "low", "high")
    present = {row["intervention"] for row in answer.rows}
    names = [name for name in INTERVENTIONS if name in present] + sorted(present - set(INTERVENTIONS))
    runs = [run for run in runs if answer.of(model=run[0], sae=run[1])]
    if not runs:
        return None
    highest = max(row["high"] for row in answer.rows)
    panels = []
    for model, sae, title in titled(runs):
        rows = [row for row in answer.of(model=model) if row["sae"] in (sae, None)]
        recalls = ", ".join(f"{_name(row)} {row['r1']:.3f}" for row in rows if row["direction"] == "image_to_text")
        label = f"Image to text R@1 of {title} by intervention: {recalls}."
        panels.append(Panel(_dots(rows, names, highest), title, label, (4.9, 0.8 + 0.27 * len(names))))
    gallery = max(row["gallery"] for row in answer.rows)
    caption = (
        f"Recall at 1 in a gallery of {gallery} images with all their captions; bars: range over seeds. Vertical "
        "lines: the unchanged embeddings. Random: concepts drawn at random that hold as much energy as those removed "
        "in the line above. Modality means removed: from the embeddings, without an SAE. Reconstructions and only top "
        "bridges include the decoder's bias."
    )
    keys = [LegendKey(name.replace("_", " "), color, marker=mark, line=False) for name, color, mark, _ in DIRECTIONS]
    return Drawn("retrieval", panels, keys, caption, answer.sql, min(2, columns_for(runs)))


def _name(row: Row) -> str:
    name: str = row["intervention"]
    return name.replace("_", " ") if name.startswith("random") else INTERVENTIONS.get(name, name)


def _dots(rows: list[Row], names: list[str], highest: float) -> Draw:
    def draw(axes: Axes) -> None:
        for place in range(1, len(names), 2):
            axes.axhspan(place - 0.5, place + 0.5, color=LINE, alpha=0.35, linewidth=0)
        for direction, color, marker, shift in DIRECTIONS:
            for row in rows:
                if row["direction"] != direction:
                    continue
                y = names.index(row["intervention"]) + shift
                if row["intervention"] == "embeddings":
                    axes.axvline(row["r1"], color=color, linewidth=0.9, linestyle=":")
                hollow = row["intervention"].startswith("random")
                axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2, alpha=0.5)
                axes.plot(
                    row["r1"], y, color=color, marker=marker, markersize=5,
                    markerfacecolor=PAPER if hollow else color,
                )  # fmt: skip
        axes.set_yticks(range(len(names)), [INTERVENTIONS.get(name, name) for name in names])
        for name, tick in zip(names, axes.get_yticklabels(), strict=True):
            tick.set_color(MUTED if name.startswith("random") else tick.get_color())
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, min(1.02, 1.06 * highest) or 1), ylim=(len(names) - 0.5, -0.5), xlabel="R@1")
        axes.xaxis.set_major_formatter(FuncFormatter(short))

    return draw
