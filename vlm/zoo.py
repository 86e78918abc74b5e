"""The named models: short names a study may use in place of a spec. One table, so that a name means one checkpoint.

Names say nothing about versions: the hub's revision of each is resolved once for a store, and recorded.
"""

from __future__ import annotations

from typing import NamedTuple


class Named(NamedTuple):
    """A checkpoint with a short name."""

    spec: str
    note: str  #: what a reader of a table of results must know of it


ZOO = {
    "clip": Named("hf:openai/clip-vit-base-patch16", "softmax loss, causal text tower, 512 dimensions, 224 px"),
    "siglip": Named("hf:google/siglip-base-patch16-224", "sigmoid loss, English sentencepiece, 768 dimensions, 224 px"),
    "siglip2": Named(
        "hf:google/siglip2-base-patch16-224",
        "fixed resolution (model type siglip), lower-cased multilingual text, 768 dimensions, 224 px; "
        "the NaFlex checkpoints go by hf:google/siglip2-base-patch16-naflex",
    ),
    "aimv2": Named(
        "hf:apple/aimv2-large-patch14-224-lit", "the one AIMv2 with a text tower; large, 768 dimensions, 224 px"
    ),
}
SPECS = (
    "open_clip:NAME/PRETRAINED",
    "open_clip:local-dir:PATH",
    "hf:REPOSITORY[@REVISION]",
    "hf:local-dir:PATH",
    *ZOO,
)


def expand(spec: str) -> str:
    """The full spec of a short name; any other spec as it is."""
    return ZOO[spec].spec if spec in ZOO else spec
