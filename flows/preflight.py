"""Check everything that a study reads from outside its store, before long work starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.config import Study
from flows.narrow import WHOLE, Narrow
from flows.sections import ImportedSAE
from storage.errors import BadInput, is_bad_input
from storage.runs import last_run
from tasks.checkpoint import problem_of
from tasks.decoding import check_decode
from tasks.weights import check_weights


def look(study: Study, store: Path, narrow: Narrow = WHOLE) -> None:
    """Look at every model, folder of vectors and checkpoint that the study names, and that `narrow` leaves in.

    Raises BadInput with one line per problem, so that one broken model does not hide the next. Checkpoints are read
    whole, but no weights of models are loaded.
    """
    problems = [
        *_problems_of_models(study, store, narrow),
        *_problems_of_decoding(study, store),
        *_problems_of_checkpoints(study, narrow),
    ]
    if problems:
        raise BadInput("\n".join(problems))


def _problems_of_models(study: Study, store: Path, narrow: Narrow) -> Iterator[str]:
    from tasks.embed import model_identity

    for model in (model for model in study.models if narrow.model in (None, model.name)):
        spec = model.parsed_spec
        try:
            if spec.is_vectors:
                _look_at_vectors(Path(spec.rest))
            elif spec.variant is None:
                if spec.path is not None:
                    check_weights(spec)
                model_identity(model.spec, store)
        except Exception as error:
            if not is_bad_input(error):
                raise
            yield f"model {model.name}: {error}"


def _problems_of_decoding(study: Study, store: Path) -> Iterator[str]:
    """A study that is embedded may go on without a GPU, and on Ray this machine may have none.

    There the task that embeds a shard looks itself.
    """
    last = last_run(store, study.name)
    if study.runtime.runner == "ray" or (last is not None and last.of("embed")):
        return
    try:
        check_decode(study.decode, study.runtime.device)
    except ValueError as error:
        if not is_bad_input(error):
            raise
        yield str(error)


def _look_at_vectors(folder: Path) -> None:
    """Read the layout and the metadata only. The vectors are read and checked when their digests are computed."""
    from storage.fingerprints import stamp
    from storage.vector_shards import open_folder

    open_folder(folder, stamp(folder))


def _problems_of_checkpoints(study: Study, narrow: Narrow) -> Iterator[str]:
    for setting in study.saes:
        if not isinstance(setting, ImportedSAE) or narrow.sae not in (None, setting.name):
            continue
        if not Path(setting.checkpoint).exists():
            yield f"sae {setting.name}: checkpoint {setting.checkpoint}: no such file or folder"
        elif problem := problem_of(setting.checkpoint, setting.architecture, setting.k, setting.encoder):
            yield f"sae {setting.name}: {problem}"
