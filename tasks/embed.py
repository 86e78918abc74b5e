"""Embed: embed one shard of pairs with one model into Zarr arrays. An interrupted call is resumed where it stopped."""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter

import vlm
from storage.dataset import Dataset
from storage.embeddings import finish, write_modality
from storage.errors import BadInput
from storage.fingerprints import fingerprint, stamp
from storage.listing import SHARD_ROWS
from storage.memo import read_memo, update_memo
from storage.pairs import read_images
from storage.streams import image_bytes
from storage.vector_shards import forget, open_folder
from tasks.embed_pass import Ask, Made, run_pass, shard_of
from tasks.stage import Runtime, stage
from vlm.encoder import Encoder, prepared
from vlm.feed import Feed
from vlm.nvjpeg import DECODES
from vlm.pictures import MAX_PIXELS
from vlm.precision import CHECKED, make_ready
from vlm.spec import Spec

if TYPE_CHECKING:
    from PIL import Image

PILLOW = DECODES[0]
COMMITS = TypeAdapter(dict[str, str])
log = logging.getLogger("bridgescope")


def model_identity(spec: str, store: Path) -> tuple[str, str]:
    """Return (identity of a model for recipes, spec with which to load it). The model is not loaded.

    The identity of a local folder is the fingerprint of its files, whatever its path. The identity of a hub repository
    is its commit, which is resolved once per store and kept in `sources/revisions.json`. Raises BadInput for a folder
    that does not exist.
    """
    parsed = Spec.parse(spec)
    if parsed.path is not None:
        folder = Path(parsed.path).expanduser()
        if not folder.is_dir():
            raise BadInput(f"{parsed}: no such folder")
        return str(parsed.with_path(fingerprint(folder, store / "sources" / "fingerprints.json"))), spec
    if not parsed.on_hub:
        return str(parsed), spec
    pinned = str(_with_commit(parsed, store / "sources" / "revisions.json"))
    return pinned, pinned


def _with_commit(spec: Spec, memo: Path) -> Spec:
    """Turn REPOSITORY[@REVISION] in a spec into REPOSITORY@COMMIT.

    COMMIT is the commit to which this store first resolved the repository and revision.
    """
    from vlm import hub

    repository, revision = spec.repository()
    if revision and hub.COMMIT.fullmatch(revision):
        return spec
    name = f"{repository}@{revision}" if revision else repository
    commits = read_memo(memo, COMMITS)
    if name not in commits:
        commits = update_memo(memo, COMMITS, {name: hub.resolve(spec)}, first_stays=True)
    return spec.with_revision(commits[name])


class Wanted(NamedTuple):
    """A model that embeds: its identity, the spec with which it is loaded, and the dtype of its weights."""

    model: Dataset | str
    spec: str
    dtype: str


class Loaded(NamedTuple):
    """The models that could be loaded, and the errors of the others."""

    feed: Feed | None  #: None if no model could be loaded
    numbers: dict[Wanted, int]  #: of the encoders in the feed
    errors: dict[Wanted, Exception]


def _load(wanted: Wanted, device: str, store: Path) -> Encoder:
    """Load a model in float32. Raises BadInput if its folder now holds another model."""
    encoder = vlm.load(wanted.spec, device=device)
    if isinstance(wanted.model, str) and model_identity(wanted.spec, store)[0] != wanted.model:
        raise BadInput(f"{wanted.spec}: its files changed while the study was running: run the study again")
    return encoder


@functools.lru_cache(maxsize=1)
def load_encoder(wanted: Wanted, device: str, store: Path) -> Encoder:
    """Load a model, with the dtype that is wanted, for texts. The last model is cached. Raises as `embed`."""
    forget_models()
    encoder = _load(wanted, device, store)
    if encoder.identity["dtype"] != wanted.dtype:
        encoder.cast(wanted.dtype)
    return encoder


@functools.lru_cache(maxsize=1)
def load_encoders(
    wanted: tuple[Wanted, ...],
    device: str,
    store: Path,
    batch_size: int | str = "auto",
    decoders: str = "auto",
    cores: int | None = None,
    decode: str = PILLOW,
) -> Loaded:
    """Load models in float32 on a device, and make their feed.

    The last models are cached, since the shards of a study are embedded one after another. They are freed before others
    are loaded: a GPU may have no room for both. The identity of a model is part of the cache key, so a folder whose
    files were replaced is loaded again. `embed` casts the cached encoders in place, so the dtype is part of the key
    too. The error of a model is BadInput if its folder now holds another model.
    decode: what decodes JPEGs. Raises `vlm.SpecError` if it cannot on this device.
    """
    forget_models()
    encoders: dict[Wanted, Encoder] = {}
    errors: dict[Wanted, Exception] = {}
    for each in wanted:
        try:
            encoders[each] = _load(each, device, store)
        except Exception as error:
            errors[each] = error
    feed = Feed(list(encoders.values()), batch_size, decoders, cores, decode=decode) if encoders else None
    return Loaded(feed, {each: number for number, each in enumerate(encoders)}, errors)


def forget_models() -> None:
    """Free the models that `load_encoder` and `load_encoders` keep, and the memory of their device."""
    load_encoder.cache_clear()
    load_encoders.cache_clear()
    gc.collect()


@stage("embeddings", version="3", unhashed=("spec",), resumes=True, on_device=True)
def embed(
    out: Path,
    pairs: Dataset,
    model: Dataset | str,
    dtype: str,
    spec: str,
    runtime: Runtime,
    max_pixels: int = MAX_PIXELS,
    decode: str = PILLOW,
) -> int:
    """Embed the images and captions of a shard. Returns the number of rows that did not fail.

    model: the handle or the identity of the model, which is part of the recipe.
    spec: the spec with which the model is loaded, which is not part of the recipe.
    max_pixels: an image with more pixels is not decoded. Must be at least the limit of `acquire`.
    decode: what decodes JPEGs, "pillow" or "nvjpeg", whose pixels differ slightly.
    """
    found = embed_shard(pairs, {Wanted(model, spec, dtype): out}, runtime, max_pixels, decode)[0]
    if isinstance(found, Exception):
        raise found
    return found.rows


def embed_shard(
    pairs: Dataset, outs: dict[Wanted, Path], runtime: Runtime, max_pixels: int = MAX_PIXELS, decode: str = PILLOW
) -> list[Made | Exception]:
    """Embed a shard with several models in one pass. Returns for each model what was made, or its error."""
    options = (runtime.embed_batch_size, runtime.decoders, runtime.cores, decode)
    # In one order for all shards, so that the models are found where the last shard has left them.
    wanted = tuple(sorted(outs, key=str))
    loaded = load_encoders(wanted, runtime.device, runtime.store, *options)
    found: dict[Wanted, Made | Exception] = dict(loaded.errors)
    if loaded.errors:
        load_encoders.cache_clear()  # an error may pass
    shard = shard_of(runtime.store, pairs)
    asks: dict[Wanted, Ask] = {}
    for each, number in loaded.numbers.items():
        assert loaded.feed is not None
        encoder = loaded.feed.encoders[number]
        try:
            _make_ready(encoder, runtime.store, pairs, shard.captions[:CHECKED].to_list(), each, max_pixels)
            asks[each] = Ask(outs[each], number, each.dtype, each.spec.rpartition("/")[2])
        except Exception as error:
            found[each] = error
    if asks and loaded.feed is not None:
        made = run_pass(loaded.feed, list(asks.values()), shard, runtime, max_pixels)
        found.update(zip(asks, made, strict=True))
    return [found[each] for each in outs]


def _make_ready(
    encoder: Encoder, store: Path, pairs: Dataset, texts: list[str], wanted: Wanted, max_pixels: int
) -> None:
    """Let an encoder compute in its dtype. This is checked with the first captions, and the first images that decode.

    On failure the models are removed from the cache, since some weights may be cast already.
    """

    def pictures() -> Iterator[Image.Image]:
        for data in image_bytes(store, pairs):
            try:
                if data is not None:
                    picture = vlm.decode(data, max_pixels)
                    prepared(encoder.pixels.resize, picture)
                    yield picture
            except vlm.DecodeError:
                continue  # `embed` counts this image as failed later

    try:
        make_ready(encoder, pictures, texts, wanted.dtype, wanted.spec)
    except Exception:
        load_encoders.cache_clear()
        raise


@stage("embeddings", version="2", unhashed=("path",), resumes=True)
def adopt_vectors(out: Path, pairs: Dataset, rows: str, path: str, runtime: Runtime) -> int:
    """Write the user's own vectors of a shard's pairs, normalised. Returns the number of rows.

    rows: digest of these rows in the folder `path`. Raises BadInput if the rows have changed since the digest was made.
    """
    from storage.vectors import unit

    folder = open_folder(Path(path), stamp(Path(path)))
    place = folder.place(runtime.store, pairs)
    if folder.digest(place) != rows:
        forget(runtime.store, Path(path))
        raise BadInput(f"embeddings:{path}: the folder changed while the study was running: run the study again")
    vectors, (image, text) = folder.vectors, place
    ids = read_images(runtime.store, pairs, ["image_id"])["image_id"]
    shard = int(ids[0]) // SHARD_ROWS if len(ids) else None  # a shard has no images if all were removed
    dim = vectors.image.shape[1]
    write_modality(out, "image", len(image), dim, lambda a, b: unit(vectors.image[image[a:b]]), lambda _: None)
    write_modality(out, "text", len(text), dim, lambda a, b: unit(vectors.text[text[a:b]]), lambda _: None)
    finish(out, {"model": {"vectors": rows}, "dtype": str(vectors.image.dtype), "shard": shard, "failed_rows": []})
    return len(image) + len(text)
