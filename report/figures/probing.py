"""Probes: how well a few concepts predict labels, by the number of concepts, beside embeddings and frozen twins."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from report.drawing import FIFTH, FIRST, FOURTH, INK, SECOND, THIRD, Draw, Drawn, LegendKey, Panel, dashes, short
from report.figures.runs import Runs, titled
from report.queries import Answer, Row

CURVES = (("best_frozen", SECOND, "s", "5 2"), ("pca_chosen", FOURTH, "^", "1.5 1.5"), ("pca", FIFTH, "D", "5 2 1.5 2"))
LEVELS = (("all_concepts", THIRD, "1.5 2.5"), ("embedding", INK, ""))
NAMES = {
    "best_frozen": "best frozen twin",
    "pca_chosen": "chosen components",
    "pca": "first components",
    "all_concepts": "all concepts",
    "embedding": "embedding",
}
ITEMS = {"image": "images", "text": "captions"}


def curves(answer: Answer, runs: Runs) -> Drawn | None:
    """Balanced accuracy against the number of concepts, one panel per SAE, items and name of labels; None without rows.

    answer: rows of the macro `probing_figures`, with model and sae.
    """
    panels = []
    for model, sae, title in titled(runs):
        of_run = answer.of(model=model, sae=sae)
        for modality, name in dict.fromkeys((row["modality"], row["name"]) for row in of_run):
            rows = [row for row in of_run if (row["modality"], row["name"]) == (modality, name)]
            accuracies = ", ".join(f"{row['features']}: {row['concepts']:.3f}" for row in rows)
            label = (
                f"Balanced accuracy of probes of {name} on {ITEMS[modality]} for {title}, by number of concepts: "
                f"{accuracies}."
            )
            labels = rows[0]["labels"]
            number = f"{labels} label{'s' if labels > 1 else ''}"
            panels.append(Panel(_panel(rows), f"{title}: {name} of {ITEMS[modality]}, {number}", label))
    if not panels:
        return None
    caption = (
        "Balanced accuracy on held-out items of a linear probe of a label, mean over labels; .5 is chance. The "
        "concepts of each label are those whose mean activation differs most on training items. Band: range over "
        "seeds. First components: as many principal components of the embeddings; chosen components: chosen for each "
        "label as concepts are."
    )
    keys = [
        LegendKey("concepts", FIRST, marker="o"),
        *(LegendKey(NAMES[key], color, dash, marker=mark) for key, color, mark, dash in CURVES),
        *(LegendKey(NAMES[key], color, dash) for key, color, dash in LEVELS),
    ]
    return Drawn("probing", panels, keys, caption, answer.sql, 2)


def _panel(rows: list[Row]) -> Draw:
    def draw(axes: Axes) -> None:
        for key, color, dash in LEVELS:
            if rows[0][key] is not None:
                axes.axhline(rows[0][key], color=color, linestyle=dashes(dash), linewidth=1.2)
        for key, color, mark, dash in CURVES:
            known = [row for row in rows if row[key] is not None]
            at = [row["features"] for row in known], [row[key] for row in known]
            axes.plot(*at, color=color, marker=mark, markersize=4, linestyle=dashes(dash))
        features = [row["features"] for row in rows]
        axes.fill_between(
            features, [row["low"] for row in rows], [row["high"] for row in rows], color=FIRST, alpha=0.25, linewidth=0
        )
        axes.plot(features, [row["concepts"] for row in rows], color=FIRST, marker="o", markersize=4)
        axes.set_xscale("log", base=2)
        axes.set_xticks(features)
        axes.set(ylim=(0.48, 1.02), xlabel="concepts, or components (log scale)", ylabel="balanced accuracy")
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(short))

    return draw
