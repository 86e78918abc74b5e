"""Stability of the K most energetic concepts against K, and stability between settings and their data diets.

A data diet is the same setting trained on other data. A floor is the stability that random dictionaries reach.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullLocator

from report.drawing import FIRST, INK, LINE, PAPER, SECOND, THIRD, Draw, Drawn, LegendKey, Panel, dashes, say, short
from report.figures.runs import Runs, columns_for, models_of, titled
from report.queries import Answer, Row
from report.wording import number

FLOORS = (("floor_random", THIRD, "1.5 2.5"), ("floor_matched", SECOND, "5 3"))


def curves(answer: Answer, runs: Runs) -> Drawn | None:
    """Stability of the K most energetic concepts against K, with floors (random dictionaries); None without SAEs."""
    if not runs:
        return None
    lows = [row[name] for row in answer.rows for name in ("floor_random", "low") if row[name] is not None]
    bottom = min(0.0, *lows) if lows else 0.0
    widest = max((row["k"] for row in answer.rows), default=1)
    panels = []
    for model, sae, title in titled(runs):
        rows = answer.of(model=model, sae=sae)
        label = f"Stability of the K most energetic concepts of {title} against K, with both floors."
        if rows and rows[-1]["stability"] is not None:
            last = rows[-1]
            label += (
                f" Over all {last['k']}: {number(last['stability'])}, floor_matched {number(last['floor_matched'])}."
            )
        panels.append(Panel(_curve(rows, bottom, widest), title, label))
    caption = (
        "Stability: mean cosine of concepts matched between two seeds, over the K with most energy. Band of the line: "
        "range over pairs of seeds. Bands of the floors: two standard deviations of their draws to either side. "
        "Compare with floor_matched, which keeps the mean and covariance of the dictionary."
    )
    keys = [
        LegendKey("stability", FIRST, marker="o"),
        *(LegendKey(name, color, dash) for name, color, dash in FLOORS[::-1]),
    ]
    return Drawn("stability", panels, keys, caption, answer.sql, columns_for(runs))


def _curve(rows: list[Row], bottom: float, widest: int) -> Draw:
    def draw(axes: Axes) -> None:
        for floor, color, dash in FLOORS:
            known = [row for row in rows if row[floor] is not None]
            k, mean = [row["k"] for row in known], [row[floor] for row in known]
            spread = [2 * (row[f"{floor}_sd"] or 0) for row in known]
            low = [m - s for m, s in zip(mean, spread, strict=True)]
            high = [m + s for m, s in zip(mean, spread, strict=True)]
            axes.fill_between(k, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(k, mean, color=color, linestyle=dashes(dash))
        known = [row for row in rows if None not in (row["stability"], row["low"], row["high"])]
        if not any(row[name] is not None for row in rows for name in ("stability", *(name for name, *_ in FLOORS))):
            say(axes, "no pair of seeds was matched, and there are no floors")
        k = [row["k"] for row in known]
        low, high = [row["low"] for row in known], [row["high"] for row in known]
        axes.fill_between(k, low, high, color=FIRST, alpha=0.25, linewidth=0)
        axes.plot(k, [row["stability"] for row in known], color=FIRST, marker="o", markersize=3)
        energetic_axis(axes, widest)
        axes.set(ylim=(bottom, 1.02), ylabel="mean matched cosine")
        axes.yaxis.set_major_locator(MultipleLocator(0.25))
        axes.yaxis.set_major_formatter(FuncFormatter(short))

    return draw


def energetic_axis(axes: Axes, widest: int) -> None:
    """Set the x axis to the number K of most energetic concepts, on a log scale."""
    axes.set_xscale("log", base=2)
    axes.set(xlim=(0.9, widest * 1.1), xlabel="K most energetic concepts (log scale)")
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.xaxis.set_minor_locator(NullLocator())


def diets(answer: Answer, runs: Runs) -> Drawn | None:
    """Stability within and between settings, with the floors of random dictionaries; None if no settings were matched.

    answer: rows (model, sae_a, sae_b, same_seed, stability, low, high, energy_weighted, pairs, floor_matched,
    floor_random).
    """
    answer = answer.known("stability", "low", "high")
    between = [row for row in answer.rows if row["sae_a"] != row["sae_b"]]
    if not between:
        return None
    names = list(dict.fromkeys((row["sae_a"], row["sae_b"]) for row in answer.rows))
    panels = []
    for model in models_of(runs):
        rows = answer.of(model=model)
        if not rows:
            continue
        worst = min((row for row in rows if not row["same_seed"]), default=rows[0], key=lambda row: row["stability"])
        label = (
            f"Stability between settings of {model}; the lowest is {worst['sae_a']} against {worst['sae_b']}, "
            f"{worst['stability']:.3f}."
        )
        panels.append(Panel(_diets(rows, names), model, label, (4.9, 0.9 + 0.27 * len(names))))
    caption = (
        "Mean cosine of concepts matched between two SAEs of different seeds; bars: range over pairs. Two seeds of one "
        "setting are the reference for its data diets. Hollow: two SAEs of the same seed. They start from the same "
        "dictionary, which also makes them similar."
    )
    keys = [
        LegendKey("stability", FIRST, marker="o", line=False),
        LegendKey("the same seed", FIRST, marker="o", line=False, hollow=True),
        LegendKey("energy-weighted", INK, marker="D", line=False),
        LegendKey("floor_matched", SECOND, marker="|", line=False),
        LegendKey("floor_random", THIRD, marker="|", line=False),
    ]
    return Drawn("diets", panels, keys, caption, answer.sql, min(2, len(panels)))


def _diets(rows: list[Row], names: list[tuple[str, str]]) -> Draw:
    def draw(axes: Axes) -> None:
        for row in rows:
            y = names.index((row["sae_a"], row["sae_b"]))
            if row["same_seed"]:
                axes.plot(row["stability"], y, color=FIRST, marker="o", markersize=5, markerfacecolor=PAPER)
                continue
            axes.plot([row["low"], row["high"]], [y, y], color=FIRST, linewidth=2.2, solid_capstyle="round", alpha=0.5)
            axes.plot(row["stability"], y, color=FIRST, marker="o", markersize=5)
            if row["energy_weighted"] is not None:
                axes.plot(row["energy_weighted"], y, color=INK, marker="D", markersize=4)
            for floor, color in (("floor_random", THIRD), ("floor_matched", SECOND)):
                if row[floor] is not None:
                    axes.plot(row[floor], y, color=color, marker="|", markersize=9, markeredgewidth=2)
        labels = [f"{a}, seeds" if a == b else f"{a} × {b}" for a, b in names]
        axes.set_yticks(range(len(names)), labels)
        axes.set(xlim=(0, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="mean matched cosine")
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.grid(axis="y", color=LINE)
        axes.tick_params(axis="y", length=0)

    return draw
