"""The model of a study file that `bridgescope init` writes: its spec, and the dimensions of its embeddings."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from flows.costs import dimension_of
from storage.errors import BadInput
from tasks.specs import FORMS, Spec, forms
from tasks.weights import check_weights

OPEN_CLIP = "open_clip_config.json"  # marks a folder that open_clip loads
TRANSFORMERS = "config.json"  # marks a folder that transformers loads
#: where the files of a checkpoint state the dimensions of the embeddings that both towers share
DIMENSIONS = (
    ("model_cfg", "embed_dim"),
    ("projection_dim",),
    ("text_config", "projection_size"),
    ("vision_config", "hidden_size"),
)


class Chosen(NamedTuple):
    """A model for a study file."""

    spec: Spec  #: its path, if it has one, is absolute
    dim: int  #: dimensions of its embeddings; an estimate for a model that is not on this machine


def choose(text: str, beside: Path) -> Chosen:
    """The model that `--model` names: a spec, or a folder that holds a checkpoint.

    A relative path is looked up in the current folder, and then in `beside`, the folder of the study file. Raises
    BadInput for a text that is neither, and for a folder that is missing or holds no checkpoint.
    """
    spec = Spec.parse(text)
    if spec.kind not in FORMS and Path(text).expanduser().is_dir():
        spec = _of_folder(text, Path(text).expanduser().resolve())
    try:
        spec.check()
    except ValueError as error:
        allowed = ", ".join(forms(*FORMS))
        raise BadInput(f"--model {text}: no such folder, and no model. A model is one of {allowed}") from error
    if spec.path is None:
        return Chosen(spec, dimension_of(str(spec)))
    own = Path(spec.path).expanduser()
    place = own if own.exists() else beside / own
    if not place.exists():
        raise BadInput(f"--model {text}: there is no folder {own.absolute()}")
    spec = spec.with_path(str(place.resolve()))
    if spec.is_vectors:
        return Chosen(spec, 0)
    check_weights(spec)
    return Chosen(spec, _dimensions(place) or dimension_of(str(spec)))


def _of_folder(text: str, folder: Path) -> Spec:
    """The spec of a folder that holds a checkpoint, by the file that describes the checkpoint."""
    for kind, name in (("open_clip", OPEN_CLIP), ("hf", TRANSFORMERS)):
        if (folder / name).is_file():
            return Spec.of_folder(kind, folder)
    raise BadInput(
        f"--model {text}: the folder holds no checkpoint: there is neither {OPEN_CLIP} (open_clip) nor {TRANSFORMERS} "
        "(transformers)"
    )


def _dimensions(folder: Path) -> int | None:
    """Dimensions of the embeddings that a checkpoint's configuration states; None if it states none."""
    for name in (OPEN_CLIP, TRANSFORMERS):
        with suppress(OSError, ValueError):
            config = json.loads((folder / name).read_text(encoding="utf-8"))
            for place in DIMENSIONS:
                if isinstance(found := _at(config, place), int):
                    return found
    return None


def _at(config: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        config = config.get(key) if isinstance(config, dict) else None
    return config
