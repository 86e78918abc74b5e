"""Tables of the named models: short names that a study may use in place of a spec, and the demo's variants.

A short name does not fix a version: each store resolves the hub's revision once, and records it.
"""

from __future__ import annotations

from typing import NamedTuple


class Named(NamedTuple):
    """A checkpoint with a short name."""

    spec: str
    note: str  #: what a reader of a table of results must know about the checkpoint


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


class Variant(NamedTuple):
    """The training objective of a demo model. The variants differ in nothing else."""

    loss: str  #: "softmax" (CLIP's) or "sigmoid" (SigLIP's)
    epochs: int
    scale: float  #: factor of the cosines: fixed for softmax, the initial value for sigmoid
    bias: float | None  #: initial value of the number added to the logits, for sigmoid only


#: The softmax variant has the scale of 100 (a temperature of .01) that CLIP's training ends with. Learning the scale
#: from CLIP's initial value would close the gap between the modalities, and remove the unimodal concepts that this
#: variant is meant to show.
VARIANTS = {
    "emoji-clip": Variant("softmax", epochs=20, scale=100.0, bias=None),
    "emoji-siglip": Variant("sigmoid", epochs=30, scale=10.0, bias=-10.0),
}
