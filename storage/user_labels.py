"""The labels that users of the explorer give to concepts: one JSON file in the study's folder of the store.

A label belongs to a concept of an SAE, named by `model/sae/seed`. An SAE that is trained again under the same name has
other concepts, so a label also holds the dataset of its SAE, and is shown for no other.
"""

from __future__ import annotations

import datetime
import json
import unicodedata
from pathlib import Path
from typing import Any

from storage.dataset import locked, write_atomically
from storage.errors import BadInput
from storage.runs import Run

FILE = "labels.json"
SHOWN = "data/labels.json"  # the name under which a site has them
LONGEST = 80  # characters of a label
MOST = 10_000  # labels of a study
Record = dict[str, Any]


def path_of(store: Path, study: str) -> Path:
    """The file of a study's labels; it need not exist."""
    return store / "studies" / study / FILE


def read_labels(store: Path, run: Run) -> list[Record]:
    """The labels of the SAEs of a run: key, concept, label and time of each, by key and concept.

    Raises BadInput for a file that holds something else.
    """
    now = trained(run)
    shown = [one for one in _stored(path_of(store, run.study)) if now.get(one["key"]) == one["dataset"]]
    ordered = sorted(shown, key=lambda one: (one["key"], one["concept"]))
    return [{name: one[name] for name in ("key", "concept", "label", "time")} for one in ordered]


def set_label(store: Path, run: Run, key: str, concept: int, label: str, width: int) -> list[Record]:
    """Give a concept a label, or remove its label with an empty one. Returns the labels of the run.

    width: number of concepts of the SAE. The label of the same concept of another SAE under this key, as in another
    variant, stays. The file is replaced in one step, so that a reader never sees half of it.
    Raises BadInput for an SAE or a concept that the run does not have, for a label that is too long or holds control
    characters, and for a store that cannot be written.
    """
    datasets = trained(run)
    if key not in datasets:
        raise BadInput(f"no SAE {key!r} in this study")
    if not 0 <= concept < width:
        raise BadInput(f"concept {concept}: {key} has the concepts 0 to {width - 1}")
    text = checked(label)
    path = path_of(store, run.study)
    own = (key, concept, datasets[key])
    with locked(path):  # several explorers, each a process of its own, may show one study
        kept = [one for one in _stored(path) if (one["key"], one["concept"], one["dataset"]) != own]
        if text:
            if len(kept) >= MOST:
                raise BadInput(f"the study has {len(kept)} labels, and {MOST} are allowed: remove some")
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            kept.append({"key": key, "concept": concept, "label": text, "time": time, "dataset": datasets[key]})
        write_atomically(path, json.dumps({"labels": kept}, indent=1))
    return read_labels(store, run)


def checked(label: str) -> str:
    """A label without spaces at its ends. Raises BadInput for one that is too long or holds control characters."""
    text = label.strip()
    if len(text) > LONGEST:
        raise BadInput(f"the label has {len(text)} characters; at most {LONGEST} are kept")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text):
        raise BadInput("the label holds a line break or another control character")
    return text


def trained(run: Run) -> dict[str, str]:
    """The dataset of each SAE of a run, by `model/sae/seed`."""
    return {f"{entry.model}/{entry.sae}/{entry.seed}": str(entry.dataset.path) for entry in run.of("train")}


def _stored(path: Path) -> list[Record]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        labels = json.loads(text)["labels"]
        return [{**one, "concept": int(one["concept"]), "label": str(one["label"])} for one in labels if one["dataset"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} does not hold labels of concepts: {error!r}; move it away") from error
