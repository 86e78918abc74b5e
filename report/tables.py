"""Tables of the page: the columns of an answer that are shown, with their headings and numbers of digits."""

from __future__ import annotations

import csv
import io
import math
from typing import Any, NamedTuple

from report.figures.runs import Runs
from report.queries import LABELLED_BRIDGES, MIN_FIRINGS, UNIMODAL, Answer, Row
from report.wording import number, percent

FROZEN = ("frozen_decoder", "soft_frozen_decoder", "frozen_encoder")
WORDS, COUNT, PERCENT, SMALL = "words", "count", "percent", "small"  # forms of a column, or a number of digits


class Column(NamedTuple):
    """One column of a table."""

    key: str  #: column of the answer
    heading: str
    form: str | int  #: WORDS, COUNT, PERCENT, SMALL, or the number of digits after the point


class Cell(NamedTuple):
    """One value as text; words are aligned left, numbers right."""

    text: str
    numeric: bool


class Table(NamedTuple):
    """A table as the template shows it."""

    caption: str
    note: str
    head: list[Cell]
    rows: list[list[Cell]]
    sql: str
    csv: str  #: the same rows as a CSV file, with all digits


MODEL, SAE = Column("model", "model", WORDS), Column("sae", "SAE", WORDS)
PLACED = [
    Column("correlation", "all items", 3), Column("match_confidence", "over second best", 3),
    Column("one_to_one", "one to one", 3), Column("ceiling", "ceiling", 3), Column("figure", "result", 3),
    Column("floor", "floor", 3), Column("floor_sd", "its sd", 4), Column("place", "place", 2),
    Column("low", "lowest", 2), Column("high", "highest", 2),
]  # fmt: skip
BESIDE_TWIN = [Column("best_frozen", "best frozen twin", 3), Column("excess", "excess", 3)]
COLUMNS = {
    "counts": [
        Column("split", "split", WORDS), Column("images", "images", COUNT), Column("captions", "captions", COUNT),
    ],
    "dropped": [Column("cause", "cause", WORDS), Column("items", "items", COUNT)],
    "settings": [
        SAE, MODEL, Column("architecture", "architecture", WORDS), Column("dim", "d", COUNT),
        Column("width", "concepts C", COUNT), Column("k", "k", COUNT), Column("decoder_bias", "decoder bias", WORDS),
        Column("image_share", "image share", WORDS), Column("data_half", "data half", WORDS),
        Column("seeds", "seeds", COUNT), Column("rows_seen", "rows seen", COUNT),
    ],
    "reconstruction": [
        SAE, MODEL, Column("seed", "seed", COUNT), Column("r2_image", "R² image", 3), Column("r2_text", "R² text", 3),
        Column("r2", "R² both", 3), Column("cosine", "cosine", 3), Column("l0_image", "L0 image", 2),
        Column("l0_text", "L0 text", 2), Column("l0", "L0", 2), Column("hoyer", "Hoyer", 3),
        Column("dead_fraction", "dead", PERCENT),
    ],
    "retrieval": [
        MODEL, Column("direction", "direction", WORDS), Column("gallery", "images", COUNT),
        Column("captions", "captions", COUNT), Column("r1", "R@1", 3), Column("chance1", "chance", 3),
        Column("r5", "R@5", 3), Column("chance5", "chance", 3),
        Column("r10", "R@10", 3), Column("chance10", "chance", 3),
    ],
    "geometry": [
        MODEL, Column("subspace", "subspace", WORDS), Column("rank", "rank", COUNT),
        Column("heldout_accuracy", "held-out accuracy", 3),
    ],
    "stability": [
        SAE, MODEL, Column("seed_a", "seed a", COUNT), Column("seed_b", "seed b", COUNT),
        Column("stability", "stability", 3),
        Column("floor_random", "floor random", 3), Column("floor_matched", "floor matched", 3),
        Column("floor_matched_sd", "its sd", 4), Column("sd_above", "sd above", 1), Column("alive", "alive only", 3),
        Column("energy_weighted", "energy-weighted", 3), Column("floor_energy_weighted", "its floor matched", 3),
    ],
    "partners": [
        SAE, MODEL, Column("modality_a", "concepts by", WORDS), Column("modality_b", "partners by", WORDS), *PLACED,
    ],
    "correspondence": [
        SAE, Column("model_a", "model", WORDS), Column("model_b", "partners in", WORDS),
        Column("modality", "items", WORDS), *PLACED,
    ],
    "subspace_stability": [
        SAE, MODEL, Column("atoms", "atoms", COUNT), Column("projection", "projection", 3), Column("low", "lowest", 3),
        Column("high", "highest", 3), Column("floor_random", "floor random", 3),
        Column("floor_matched", "floor matched", 3), Column("floor_matched_sd", "its sd", 4),
    ],
    "names": [
        SAE, MODEL, Column("modality", "used most on", WORDS), Column("concepts", "concepts with words", 0),
        Column("named", "named", PERCENT), Column("score", "score", 3), Column("chance", "chance", 3),
    ],
    "consensus": [
        SAE, MODEL, Column("width", "concepts of a seed", COUNT), Column("concepts", "shared", COUNT),
        Column("whole", "by all seeds", PERCENT), Column("cosine", "cosine to merged", 3),
        Column("r2_image", "R² image", 3), Column("own_r2_image", "of the seeds", 3),
        Column("r2_text", "R² text", 3), Column("own_r2_text", "of the seeds", 3),
        Column("l0", "L0", 2), Column("own_l0", "of the seeds", 2),
    ],
    "sensitivity": [
        SAE, MODEL, Column("statistic", "result", WORDS), Column("reference", "value", 3),
        Column("by_seeds", "range over seeds", 3), Column("varied", "setting", WORDS),
        Column("value", "farthest with", WORDS), Column("figure", "its value", 3), Column("low", "lowest", 3),
        Column("high", "highest", 3), Column("moved", "moves", 3),
        Column("times_seeds", "times the seeds", 1),
    ],
    "frozen": [
        SAE, MODEL, Column("figure", "result", WORDS), Column("trained", "trained", 3),
        *(Column(kind, kind.replace("_", " "), 3) for kind in FROZEN),
        *(Column(f"{kind}_random", f"{kind.replace('_', ' ')}, random", 3) for kind in FROZEN),
        Column("excess", "excess", 3),
    ],
    "labels": [
        SAE, MODEL, Column("name", "labels", WORDS), Column("concepts", "concepts", 0), Column("auc", "AUC", 3),
        Column("low", "lowest", 3), Column("high", "highest", 3), Column("null_mean", "permuted", 3),
        Column("null_q975", "its 97.5 %", 3), Column("above_null", "concepts above", PERCENT), *BESIDE_TWIN,
    ],
    "bridge_precision": [
        SAE, MODEL, Column("name", "labels", WORDS), Column("by", "strongest by", WORDS),
        Column("bridges", "bridges", COUNT), Column("precision", "of one label", PERCENT),
        Column("low", "lowest", PERCENT), Column("high", "highest", PERCENT), Column("chance", "chance", PERCENT),
        Column("labelled", "both have a label", PERCENT), Column("best_frozen", "best frozen twin", PERCENT),
    ],
    "probing": [
        SAE, MODEL, Column("modality", "items", WORDS), Column("name", "labels", WORDS),
        Column("labels", "number", COUNT), Column("features", "concepts read", COUNT),
        Column("concepts", "accuracy", 3), Column("low", "lowest", 3), Column("high", "highest", 3), BESIDE_TWIN[0],
        Column("pca", "first components", 3),
        Column("pca_chosen", "chosen components", 3), Column("all_concepts", "all concepts", 3),
        Column("embedding", "embedding", 3),
    ],
    "bridge_figures": [
        SAE, MODEL, Column("statistic", "result", WORDS), Column("figure", "value", SMALL),
        Column("images_permuted", "images permuted", SMALL), Column("images_permuted_sd", "sd", SMALL),
        Column("dictionary_permuted", "dictionary permuted", SMALL), Column("dictionary_permuted_sd", "sd", SMALL),
        Column("both_permuted", "both permuted", SMALL), Column("both_permuted_sd", "sd", SMALL),
    ],
    "totals": [
        SAE, MODEL, Column("class_image", "image concept", WORDS), Column("class_text", "text concept", WORDS),
        Column("raw_share", "raw share", PERCENT), Column("raw_range", "over seeds", WORDS),
        Column("raw_self", "of it self", PERCENT), Column("covariance_share", "covariance share", PERCENT),
        Column("covariance_range", "over seeds", WORDS), Column("covariance_self", "of it self", PERCENT),
    ],
}  # fmt: skip
#: Columns that are left out where no row has a value.
OPTIONAL = {*(f"{kind}{start}" for kind in FROZEN for start in ("", "_random")), *(one.key for one in BESIDE_TWIN)}
CAPTIONS = {
    "counts": ("Images and captions", "An image and its captions are on the same side of the split."),
    "dropped": ("Dropped, by cause", "Items of the source that were left out of the study."),
    "settings": ("SAE settings, as trained", "d: dimensions of the embeddings. Rows seen: draws of one training."),
    "reconstruction": (
        "Reconstruction and sparsity on the counted rows",
        "R² image and R² text are measured about each modality's own mean. R² both is measured about the mean of the "
        "two, so it also credits the gap between modalities. Dead: fires on no training row.",
    ),
    "retrieval": (
        "Retrieval by the embeddings themselves, next to chance",
        "Image to text counts a hit when any of the image's captions is among the first K. Chance of text to image is "
        "K over the number of images. Chance of image to text is 1 − C(M − c, K)/C(M, K) for an image with c of the M "
        "captions, averaged over the images, so it grows with the number of captions.",
    ),
    "geometry": (
        "Subspaces that separate images from captions",
        "Balanced accuracy on held-out rows of a classifier with the direction and its threshold. For inlp, the "
        "classifier is fitted after the subspace is projected out, and its accuracy should be close to one half.",
    ),
    "stability": (
        "Stability of every pair of seeds",
        "Mean cosine of concepts under the best one-to-one match. floor random: against random unit vectors. floor "
        "matched: against draws with the mean and covariance of the dictionary. sd above: the distance from floor "
        "matched, in standard deviations of its draws.",
    ),
    "partners": (
        "Partners in another seed, within a modality and across modalities",
        "Mean correlation of concepts with the concept of another seed whose codes correlate most with theirs, on the "
        "same images, the same captions, or images and their captions, weighted by energy, over pairs of seeds. "
        "Ceiling: two seeds within the modality. Floor: the best of all concepts when one seed sees permuted images. "
        "Result, ceiling and floor are of the same items. Place: 0 at the floor, 1 at the ceiling; lowest and highest "
        "over pairs.",
    ),
    "correspondence": (
        "Partners in another model",
        "As for two seeds, with concepts of two models that saw the same images and captions. Ceiling: two seeds of "
        "the first model. Floor: the other model sees permuted images. Lowest and highest place: over seeds.",
    ),
    "subspace_stability": (
        "Concepts in the span of their most similar atoms of another seed",
        "Mean length of the projection of a concept's unit direction on the span of so many atoms, weighted by energy; "
        "lowest and highest over pairs of seeds. Compare with the floor of as many atoms of a random dictionary: both "
        "rise with their number.",
    ),
    "names": (
        "Names of concepts, scored on held-out items",
        "Words: those that set the training captions of a concept apart. Score: how well the model's encoder finds the "
        "held-out items on which the concept fires by the words alone (AUC; .5 is chance, 1 is perfect), mean over "
        "concepts. Chance: the score of the words of another concept of like energy. Named: share of these concepts "
        "whose interval lies above .5; the others have no name. Means over seeds.",
    ),
    "consensus": (
        "Concepts that most seeds share",
        "A consensus SAE has the concepts that at least half of the seeds hold at a cosine of .7 or more, merged; its "
        "encoder is trained on the same rows. By all seeds: the share of these concepts that every seed holds. Cosine: "
        "of the seeds' concepts with the merged direction. Of the seeds: means over the SAEs that were joined, which "
        "have more concepts. Stability compares seeds, so a consensus SAE, which is one, has none.",
    ),
    "sensitivity": (
        "How far each result moves with a setting, and with the seeds",
        "Other settings of the study that differ from this one in a single key; of the values of a key, the one that "
        "moves the result farthest, with its lowest and highest value. Values are means over seeds. Ranges are over "
        "seeds, for the stability over pairs of them, and not known (–) with one. R² is left out for settings that "
        "differ in k, since it is not comparable at another L0. Times the seeds: the distance over the range.",
    ),
    "frozen": (
        "Results of trained SAEs and of their frozen twins",
        "The same settings, rows and seeds, but a part is never learned: the atoms stay at their start, or within a "
        "cosine of .8 of it, or the encoder stays. Random: atoms that start in random directions. Means over seeds. "
        "Excess: the share of the way from the best twin to the bound, 1, that the trained SAE has gained; at 0 or "
        "below, the result is no evidence of what was learned.",
    ),
    "labels": (
        "How well concepts tell labels apart, compared with permuted labels",
        "The label of each concept is chosen on training items; its AUC is measured on held-out items: mean over the "
        "counted concepts, with the lowest and highest mean of a seed. Permuted: the same with labels permuted over "
        "images and chosen again. Concepts above: those above the 97.5 % point of their own permutations; 2.5 % is "
        "chance. Excess: the share of the way from the best frozen twin to 1 that training has gained.",
    ),
    "bridge_precision": (
        "Do the strongest bridges join concepts of one label?",
        f"Of the {LABELLED_BRIDGES} strongest bridges of each seed by each score, without bridges of a concept with "
        "itself: the share whose two concepts have the same best label, both above their null; lowest and highest over "
        "seeds. "
        "Chance: the same image concepts and text concepts, paired at random. Best frozen twin: the highest share of a "
        "twin, by its own bridges and labels.",
    ),
    "probing": (
        "What a few concepts predict of labels",
        "Balanced accuracy on held-out items of a linear probe, mean over labels; .5 is chance. The concepts are those "
        "whose mean activation differs most on training items. First components: as many principal components of the "
        "embeddings; chosen components: chosen for each label as concepts are. All concepts and the whole embedding "
        "are the same in each row of the items.",
    ),
    "bridge_figures": (
        "Bridges, with their nulls",
        "Means over seeds; the nulls are also averaged over their draws. Opposite: bridges between unimodal concepts "
        "of opposite modality, as their net total, the positive part of it, and its share of all positive bridges. "
        "Self: the share of bridges of a concept with itself. Totals are sums over all "
        "cells; top bridges are the largest of those with enough pairs to be stored.",
    ),
    "totals": (
        "Bridge totals by class of the two concepts",
        f"Shares of the positive part of all cells, mean over seeds. image, text: modality score over {1 - UNIMODAL}, "
        f"under {UNIMODAL}, including concepts with under {MIN_FIRINGS} firings, which the histogram leaves out. "
        "Self: the share of bridges of a concept with itself.",
    ),
}


def table(name: str, answer: Answer, runs: Runs) -> Table:
    """One of the page's tables; rows that name a model and a setting are in the order of the study."""
    caption, note = CAPTIONS[name]
    rows = [_with_ranges(row) for row in _in_order(answer.rows, runs)]
    known = {key for row in rows for key, value in row.items() if value is not None}
    columns = [column for column in COLUMNS[name] if column.key in known or column.key not in OPTIONAL]
    head = [Cell(column.heading, column.form != WORDS or column.key.endswith("_range")) for column in columns]
    cells = [[_cell(row[column.key], column) for column in columns] for row in rows]
    return Table(caption, note, head, cells, answer.sql, _csv(columns, rows))


def plain_table(caption: str, note: str, answer: Answer) -> Table:
    """A table of every column of an answer; the first known value decides whether a column holds numbers or words."""
    columns = [_plain_column(name, [row[name] for row in answer.rows]) for name in answer.columns]
    head = [Cell(column.heading, column.form != WORDS) for column in columns]
    cells = [[_cell(row[column.key], column) for column in columns] for row in answer.rows]
    return Table(caption, note, head, cells, answer.sql, _csv(columns, answer.rows))


def _csv(columns: list[Column], rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.heading for column in columns])
    writer.writerows([row[column.key] for column in columns] for row in rows)
    return text.getvalue()


def _plain_column(name: str, values: list[Any]) -> Column:
    first = next((value for value in values if value is not None), None)
    forms = {int: COUNT, float: SMALL}
    return Column(name, name.replace("_", " "), forms.get(type(first), WORDS))


def _in_order(rows: list[Row], runs: Runs) -> list[Row]:
    """Rows by setting and model in the order of the study; rows of the same setting and model keep their order."""
    if not rows or "model" not in rows[0]:
        return rows
    if "sae" in rows[0]:
        place = {run: i for i, run in enumerate(runs)}
        return sorted(rows, key=lambda row: place.get((row["model"], row["sae"]), len(place)))
    models = {model: i for i, model in reversed(list(enumerate(model for model, _ in runs)))}
    return sorted(rows, key=lambda row: models.get(row["model"], len(runs)))


def _with_ranges(row: Row) -> Row:
    """The row with two more columns: the range over seeds of the raw share, and of the covariance share, as text."""
    ranges: dict[str, Any] = {}
    for kind in ("raw", "covariance"):
        low, high = row.get(f"{kind}_low"), row.get(f"{kind}_high")
        ranges[f"{kind}_range"] = None if low is None or high is None else f"{percent(low)} – {percent(high)}"
    return row | ranges


def _cell(value: Any, column: Column) -> Cell:
    if column.form == WORDS:
        text = (
            {True: "yes", False: "no", None: "–"}.get(value) if value is None or isinstance(value, bool) else str(value)
        )
        return Cell(str(text).replace("_", " "), column.key.endswith("_range"))
    if value is None:
        return Cell("–", True)
    if column.form == COUNT:
        return Cell(f"{value:,}".replace(",", "\u202f"), True)
    if column.form == SMALL:
        return Cell(_small(value), True)
    return Cell(percent(value) if column.form == PERCENT else number(value, int(column.form)), True)


def _small(value: float) -> str:
    """A number with three significant digits, at most six after the point; 0 where it rounds to 0."""
    if not math.isfinite(value):
        return number(value)
    if abs(value) < 5e-7:
        return "0"
    return number(value, min(6, max(3, 2 - math.floor(math.log10(abs(value))))))
