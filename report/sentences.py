"""Findings in words: every number is read from an answer, and the wording follows from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from report.queries import MIN_FIRINGS, TOP, UNIMODAL, Answer, Row
from report.wording import each, mean, number, percent, verdict
from sae.architectures import ARCHITECTURES

SURE = 2.0  # a number is called above chance if it exceeds the null's mean by more than SURE standard deviations
NEAR = 0.1  # L0 is called close to k if |L0 - k| <= NEAR * k
ENCODERS = {
    "pursuit": "At equal L0 and with one encoder for all dictionaries, matching pursuit",
    "own": "At equal L0 and with each method's own encoder",
}
DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}


class Answers(NamedTuple):
    """The tables that the sentences are made from."""

    reconstruction: Answer
    settings: Answer
    modality: Answer
    by_energy: Answer
    totals: Answer
    retrieval: Answer
    interventions: Answer
    frontier: Answer


class Finding(NamedTuple):
    """A sentence, and the numbers of every model that support it."""

    topic: str
    text: str
    by_model: Sequence[tuple[str, str]] = ()  #: (model, its numbers), in the order of the study
    note: str = ""


def findings(answers: Answers, models: list[str], sae: str) -> list[Finding]:
    """The findings about one SAE setting, over all models that have it."""
    every = [
        seeds(answers, models, sae),
        reconstruction(answers, models, sae),
        sparsity(answers, models, sae),
        modality(answers, models, sae),
        stability(answers, models, sae, None),
        stability(answers, models, sae, TOP),
        bridging(answers, models, sae, "raw"),
        bridging(answers, models, sae, "covariance"),
        interventions(answers, models, sae),
    ]
    return [finding for finding in every if finding]


def of_models(answers: Answers, models: list[str]) -> list[Finding]:
    """The findings about the models themselves, which do not depend on an SAE setting."""
    return [finding for finding in (retrieval(answers, models), frontier(answers, models)) if finding]


def seeds(answers: Answers, models: list[str], sae: str) -> Finding:
    """The number of seeds; the other findings are means over these seeds."""
    counts = [len(answers.reconstruction.of(model=model, sae=sae)) for model in models]
    few, many = min(counts, default=0), max(counts, default=0)
    if many < 2:
        text = "One seed per model: no number here has a range, and stability needs two."
    else:
        pairs = many * (many - 1) // 2
        text = (
            f"{many} seeds per model; stability compares {pairs} pair{'s' * (pairs > 1)} of them, "
            "other numbers are means over the seeds."
        )
        if few < many:
            text = f"{few} to {many} seeds per model. Numbers are means over the available seeds."
    return Finding("Seeds", text)


def reconstruction(answers: Answers, models: list[str], sae: str) -> Finding | None:
    """R2 within each modality, the better reconstructed modality, and the models with R2 < 0 in a modality."""
    means: dict[str, tuple[float, float, float | None]] = {}
    for model in models:
        rows = answers.reconstruction.of(model=model, sae=sae)
        image, text, both = (mean(row[name] for row in rows) for name in ("r2_image", "r2_text", "r2"))
        if image is not None and text is not None:
            means[model] = image, text, both
    if not means:
        return None
    listed = each(
        means,
        lambda m: (
            f"R² {number(means[m][0])} within images and {number(means[m][1])} within captions"
            f" ({number(means[m][2])} over both)"
        ),
    )
    flags = [image > text for image, text, _ in means.values()]
    better = verdict(
        flags,
        "Images are rebuilt better than captions.",
        "Captions are rebuilt better than images.",
        "Which modality is rebuilt better differs between the models.",
    )
    worse = [model for model, (image, text, _) in means.items() if min(image, text) < 0]
    warning = f" In {', '.join(worse)} a modality is rebuilt worse than by its own mean vector." if worse else ""
    note = "Over both modalities together R² also credits the gap between them."
    return Finding("Reconstruction", better + warning, listed, note)


def sparsity(answers: Answers, models: list[str], sae: str) -> Finding | None:
    """L0 compared with the k of the setting, and the share of dead concepts."""
    ratios: list[float] = []

    def describe(model: str) -> str | None:
        rows = answers.reconstruction.of(model=model, sae=sae)
        settings = answers.settings.of(model=model, sae=sae)
        l0, dead = mean(row["l0"] for row in rows), mean(row["dead_fraction"] for row in rows)
        if l0 is None or not settings:
            return None
        k = settings[0]["k"]
        if k:  # an imported SAE may have no k
            ratios.append(l0 / k)
        image, text = mean(row["l0_image"] for row in rows), mean(row["l0_text"] for row in rows)
        fired = f"L0 {number(image, 1)} per image and {number(text, 1)} per caption" + (f" at k = {k}" if k else "")
        return f"{fired}, {percent(dead)} of concepts dead"

    listed = each(models, describe)
    if not listed:
        return None
    if not ratios:
        text = "L0 follows from the SAE's own thresholds."
    elif all(abs(ratio - 1) <= NEAR for ratio in ratios):
        text = f"L0, mean of images and captions, is within {percent(NEAR)} of k."
    elif all(ratio > 1 + NEAR for ratio in ratios):
        text = f"L0 is more than {percent(NEAR)} above k."
    elif all(ratio < 1 - NEAR for ratio in ratios):
        text = f"L0 is more than {percent(NEAR)} below k."
    else:
        text = f"L0 is not within {percent(NEAR)} of k in every model."
    return Finding("Sparsity", text, listed)


def modality(answers: Answers, models: list[str], sae: str) -> Finding | None:
    """Share of unimodal concepts, by count and by energy."""
    rows = {row["model"]: row for row in answers.modality.of(sae=sae) if row["model"] in models and row["counted"]}
    if not rows:
        return Finding("Modality", f"No concept has {MIN_FIRINGS} firings, so the modality of concepts is not known.")
    shares = {model: row["image_share"] + row["text_share"] for model, row in rows.items()}
    listed = each(
        (model for model in models if model in rows),
        lambda m: (
            f"{percent(shares[m])} of {rows[m]['counted']} concepts are unimodal"
            f" ({percent(rows[m]['image_share'])} image, {percent(rows[m]['text_share'])} text)"
            f" and hold {percent(rows[m]['unimodal_energy'])} of the energy; {rows[m]['left_out']} left out"
        ),
    )
    conclusion = verdict(
        [share > 0.5 for share in shares.values()],
        "More than half of the concepts are unimodal.",
        "At most half of the concepts are unimodal.",
        "Whether more than half of the concepts are unimodal differs between the models.",
    )
    bound = (
        f"Unimodal: modality score under {UNIMODAL} or over {1 - UNIMODAL}, at least {MIN_FIRINGS} firings. A gap "
        "between the modalities alone makes concepts unimodal: the claims are compared with frozen SAEs."
    )
    return Finding("Modality", conclusion, listed, bound)


def stability(answers: Answers, models: list[str], sae: str, top: int | None) -> Finding | None:
    """Stability of all concepts, or of the `top` most energetic ones, compared with floor_matched.

    floor_matched is the stability of random dictionaries with the same mean and covariance.
    """
    above: list[bool] = []

    def describe(model: str) -> str | None:
        rows = answers.by_energy.of(model=model, sae=sae)
        row = _at(rows, top)
        if top and rows and row is rows[-1]:
            return None  # `top` covers the whole dictionary; another finding reports it
        if row is None or None in (row["stability"], row["low"], row["floor_matched"]):
            return None
        is_above, words = against_floor(row["stability"], row["low"], row["floor_matched"], row["floor_matched_sd"])
        above.append(is_above)
        floor = f"floor_matched {number(row['floor_matched'])} ± {number(row['floor_matched_sd'])}"
        share = f" ({percent(row['energy_share'])} of the energy)" if top else ""
        return f"{number(row['stability'])} over the {row['k']} concepts{share}, {floor}: {words}"

    listed = each(models, describe)
    topic = f"Stability of the {top} most energetic" if top else "Stability"
    if not listed:
        return None if top else Finding(topic, "Not measured: it compares two seeds of one setting.")
    subject = "The most energetic concepts are" if top else "Concepts are, on average,"
    conclusion = verdict(
        above,
        f"{subject} found again in other seeds beyond chance.",
        f"{subject} not found again in other seeds beyond chance.",
        f"{subject} found again in other seeds beyond chance in some models only.",
    )
    note = "The floor is that of random dictionaries; the claims are compared with the best frozen SAE too."
    return Finding(topic, conclusion, listed, note)


def _at(rows: list[Row], top: int | None) -> Row | None:
    """The row with the largest K that is at most `top`; if `top` is None, the row of the whole dictionary."""
    fitting = [row for row in rows if top is None or row["k"] <= top]
    return max(fitting, key=lambda row: row["k"]) if fitting else None


def against_floor(value: float, low: float, floor: float, sd: float | None) -> tuple[bool, str]:
    """Whether a stability is above its floor, and the distance (value - floor) / sd in words.

    value: mean over pairs of seeds; low: the lowest pair. floor, sd: mean and standard deviation of the stability of
    random dictionaries. A stability is above its floor if the distance exceeds SURE; without sd, if value > floor.
    """
    if not sd:
        return value > floor, "above the floor (its spread is not known)" if value > floor else "not above the floor"
    distance = (value - floor) / sd
    if distance > SURE:
        least = (low - floor) / sd
        reserve = "" if least > SURE else ", though not for every pair of seeds"
        return True, f"{number(distance, 1)} sd above the floor{reserve}"
    if distance < -SURE:
        return False, f"not above the floor but {number(-distance, 1)} sd below it"
    return False, f"not above the floor ({number(distance, 1)} sd)"


def bridging(answers: Answers, models: list[str], sae: str, kind: str) -> Finding | None:
    """Share of the sum of positive bridges that joins unimodal image concepts to unimodal text concepts."""
    shares: dict[str, float] = {}
    leading: dict[str, Row] = {}
    own: dict[str, float] = {}
    for model in models:
        rows = [row for row in answers.totals.of(model=model, sae=sae) if row[f"{kind}_share"] is not None]
        if rows:
            both = [row for row in rows if (row["class_image"], row["class_text"]) == ("image", "text")]
            shares[model] = both[0][f"{kind}_share"] if both else 0.0
            own[model] = sum(row[f"{kind}_self"] or 0 for row in rows)
            leading[model] = max(rows, key=lambda row: row[f"{kind}_share"])
    if not shares:
        return None

    def describe(model: str) -> str:
        first = leading[model]
        pair = f"{first['class_image']} × {first['class_text']}"
        largest = f"the largest is {pair} with {percent(first[f'{kind}_share'])}"
        most = "the largest share" if pair == "image × text" else largest
        return f"{percent(shares[model])} image × text, {most}; {percent(own[model])} concepts with themselves"

    total = f"the positive {kind} total"
    conclusion = verdict(
        [share > 0.5 for share in shares.values()],
        f"Most of {total} runs from unimodal image to unimodal text concepts.",
        f"Most of {total} does not run from unimodal image to unimodal text concepts.",
        f"Whether most of {total} runs from unimodal image to unimodal text concepts differs between the models.",
    )
    note = (
        f"Shares of the positive {kind} bridge total, mean over seeds. Unimodal as above, for any number of firings. "
        "A share says nothing about chance: the claim is judged by the net total."
    )
    return Finding(f"Bridges, {kind}", conclusion, each(shares, describe), note)


def retrieval(answers: Answers, models: list[str]) -> Finding | None:
    """Recall of the embeddings themselves compared with chance. At chance, there is nothing for concepts to explain."""
    above: list[bool] = []

    def describe(model: str) -> str | None:
        recalls = []
        for row in answers.retrieval.of(model=model):
            if any(row[name] is None or not math.isfinite(row[name]) for name in ("r1", "chance1", "r10", "chance10")):
                continue
            queries = row["gallery"] if row["direction"] == "image_to_text" else row["captions"]
            for at in ("1", "10"):
                chance = row[f"chance{at}"]
                if chance < 1:  # in a gallery of ten images R@10 is always 1, so it shows nothing
                    spread = math.sqrt(chance * (1 - chance) / max(queries, 1))
                    above.append(row[f"r{at}"] > chance + SURE * spread)
            recalls.append(
                f"{DIRECTIONS[row['direction']]} R@1 {number(row['r1'])} (chance {number(row['chance1'])}),"
                f" R@10 {number(row['r10'])} (chance {number(row['chance10'])})"
            )
        return ", ".join(recalls)

    listed = each(models, describe)
    if not listed:
        return None
    if not above:
        return Finding("Retrieval", "The gallery is so small that chance finds every item.", listed)
    conclusion = verdict(
        above,
        "Retrieval is above chance in both directions.",
        "Retrieval is not above chance.",
        "Retrieval is above chance in some cases only.",
    )
    return Finding("Retrieval", conclusion, listed)


def interventions(answers: Answers, models: list[str], sae: str) -> Finding | None:
    """Whether any intervention on concepts retrieves better than the embeddings, with or without their modality means.

    An intervention is better if its R@1 exceeds p by more than SURE standard errors, sqrt(p (1 - p) / n). p is the
    larger R@1 of the embeddings with and without their modality means. n is the number of images in the gallery.
    """
    better: list[bool] = []

    def describe(model: str) -> str | None:
        rows = [row for row in answers.interventions.of(model=model) if row["sae"] in (sae, None)]
        by_name = {row["intervention"]: row for row in rows if row["direction"] == "image_to_text"}
        r1 = {name: row["r1"] for name, row in by_name.items() if row["r1"] is not None}
        if not r1.keys() >= {"embeddings", "mean_removed", "reconstructions"}:
            return None
        without = max(r1["embeddings"], r1["mean_removed"])
        tried = [name for name in r1 if name not in ("embeddings", "mean_removed") and not name.startswith("random")]
        best = max(tried, key=lambda name: r1[name])
        error = math.sqrt(max(0.0, without * (1 - without)) / max(by_name["embeddings"]["gallery"], 1))
        better.append(r1[best] > without + SURE * error)
        text = f"embeddings {number(r1['embeddings'])}, their modality means removed {number(r1['mean_removed'])}"
        text += f", reconstructions {number(r1['reconstructions'])}"
        if r1.keys() >= {"without_unimodal", "random_for_unimodal"}:
            text += f", without unimodal concepts {number(r1['without_unimodal'])}"
            text += f" (random concepts of equal energy {number(r1['random_for_unimodal'])})"
        return text

    listed = each(models, describe)
    conclusion = verdict(
        better,
        "Some intervention on concepts retrieves better than the embeddings, with or without their modality means.",
        "No intervention on concepts retrieves better than the embeddings, with or without their modality means.",
        "Whether an intervention on concepts retrieves better than the embeddings differs between the models.",
    )
    return Finding("Interventions", conclusion, listed, "Image to text R@1, mean over seeds.") if listed else None


def frontier(answers: Answers, models: list[str]) -> Finding | None:
    """Whether an SAE or a baseline reconstructs best at equal L0 and with the same kind of encoder.

    R2 is the mean of that of images and that of captions, where L0 is exactly k. Rows for which it is not known are
    left out. With matching pursuit the comparison is one of dictionaries. Each method has one seed, so a gap that is no
    wider than the range over the seeds of the model's own SAEs decides nothing, nor does any gap if that is not known.
    """
    ranges = {model: range_over_seeds(answers, model) for model in models}

    def describe(model: str) -> str | None:
        contests = _contests(answers.frontier.of(model=model), ranges[model])
        own = "not known" if ranges[model] is None else number(ranges[model])
        return "; ".join([*(text for text, _ in contests), f"range over seeds {own}"]) if contests else None

    listed = each(models, describe)
    conclusions = []
    for encoder, by in ENCODERS.items():
        ahead = [
            is_ahead
            for model in models
            for _, is_ahead in _contests(answers.frontier.of(model=model, encoder=encoder), ranges[model])
        ]
        if ahead:
            conclusions.append(_conclusion(by, ahead))
    note = (
        "R² within images, within captions, of the best SAE against the best baseline with the same kind of encoder, "
        "interpolated to an L0 of k on the measured rows. Every method was fitted with one seed. Undecided: the gap, "
        "of the mean of both, is not wider than the range of R² over the seeds of the study's own trained SAEs of the "
        "model, the widest of any setting."
    )
    if any(ranges[model] is None for model, _ in listed):
        note += " Where no setting has several seeds, how far the seed moves R² is not known, and nothing is decided."
    return Finding("Frontier", " ".join(conclusions), listed, note) if listed else None


def range_over_seeds(answers: Answers, model: str) -> float | None:
    """The widest range over seeds of R2, mean of images and captions, of a model's settings; without frozen SAEs.

    None where no setting has several seeds.
    """
    values: dict[str, list[float]] = {}
    for row in answers.reconstruction.of(model=model, frozen=None):
        if row["r2_image"] is not None and row["r2_text"] is not None:
            values.setdefault(row["sae"], []).append((row["r2_image"] + row["r2_text"]) / 2)
    return max((max(own) - min(own) for own in values.values() if len(own) > 1), default=None)


def _conclusion(by: str, ahead: list[bool | None]) -> str:
    """What the contests with one kind of encoder say together. ahead: whether the SAE is; None: undecided."""
    decided = [is_ahead for is_ahead in ahead if is_ahead is not None]
    if not decided:
        return f"{by}, whether an SAE or a baseline rebuilds most is undecided."
    rest = "" if len(decided) == len(ahead) else " where the gap decides; elsewhere it is undecided"
    return verdict(
        decided,
        f"{by}, an SAE rebuilds more than every baseline{rest}.",
        f"{by}, a baseline rebuilds more than every SAE{rest}.",
        f"{by}, whether an SAE or a baseline rebuilds most depends on k or on the model.",
    )


def _contests(rows: list[Row], by_seeds: float | None) -> list[tuple[str, bool | None]]:
    """For each encoder and k: the best SAE against the best baseline in words, and whether the SAE is ahead.

    by_seeds: the range over seeds; None if it is not known. Whether the SAE is ahead is None if the gap does not exceed
    this range.
    """
    contests = []
    known = [
        row for row in rows if mean([row["r2_image_at_k"]]) is not None and mean([row["r2_text_at_k"]]) is not None
    ]
    for encoder, k in sorted({(row["encoder"], row["k"]) for row in known}):
        of_k = [row for row in known if (row["encoder"], row["k"]) == (encoder, k)]
        net = max((row for row in of_k if row["method"] in ARCHITECTURES), key=_r2_at_k, default=None)
        other = max((row for row in of_k if row["method"] not in ARCHITECTURES), key=_r2_at_k, default=None)
        if net and other:
            by = "matching pursuit" if encoder == "pursuit" else "own encoders"
            gap = _r2_at_k(net) - _r2_at_k(other)
            is_ahead = gap > 0 if by_seeds is not None and abs(gap) > by_seeds else None
            shown = f"{by}, L0 = {k}: {_shown(net)}, against {_shown(other)}"
            contests.append((shown + (", undecided" if is_ahead is None else ""), is_ahead))
    return contests


def _r2_at_k(row: Row) -> float:
    return float(row["r2_image_at_k"] + row["r2_text_at_k"]) / 2


def _shown(row: Row) -> str:
    return f"{row['method']} {number(row['r2_image_at_k'], 2)}, {number(row['r2_text_at_k'], 2)}"
