"""How much memory of a GPU embedding takes: estimated from a model's spec, before anything is loaded. Imports no torch.

The name of a released model says how large its image tower is, and how many patches a picture has. The numbers of
parameters are those of the released models; tests count them again by building these models without a GPU. For a model
whose name does not say its size there is no estimate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vlm.spec import Spec

#: What torch, cuBLAS and the driver hold on a GPU, and gaps between tensors. Assumed, not measured.
BESIDES = 2**30
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LOADED = 4  # bytes of a weight: weights are loaded in float32, whatever they are cast to
#: Tensors [images, tokens, width], and as many [images, tokens, hidden], that lie in memory at once at most, in a layer
#: of a transformer: the input of the first layer, which is kept to the end, its own input, the norm of it, and three in
#: its last part.
ALIVE = 3


class Size(NamedTuple):
    """A size of image towers, and the models that have such a tower."""

    width: int
    hidden: int  #: width of the last part of a layer
    millions: dict[str, int]  #: parameters of both towers, by family; "i18n" is SigLIP with a larger vocabulary


#: By the letters of the names of open_clip.
SIZES = {
    "s": Size(384, 1536, {"clip": 63}),
    "m": Size(512, 2048, {"clip": 103}),
    "b": Size(768, 3072, {"clip": 151, "siglip": 203, "siglip i18n": 371, "siglip2": 375}),
    "l": Size(1024, 4096, {"clip": 428, "siglip": 652, "siglip2": 882, "aimv2": 435}),
    "so400m": Size(1152, 4304, {"siglip": 878, "siglip i18n": 1128, "siglip2": 1136}),
    "h": Size(1280, 5120, {"clip": 986}),
    "g": Size(1408, 6144, {"clip": 1367}),
    "gopt": Size(1536, 6144, {"siglip2": 1871}),
    "bigg": Size(1664, 8192, {"clip": 2540}),
}
WORDS = {
    "small": "s", "base": "b", "large": "l", "huge": "h", "giant": "g", "gigantic": "bigg", "giantopt": "gopt",
    "giant-opt": "gopt", "so400m": "so400m",
}  # fmt: skip
#: The size and the edge of a patch in a name: `large-patch14`, `vit_large_patch14`, `ViT-L-14`, `metaclip-l14`.
SIZED = re.compile(
    rf"(?:^|[-_])(?:(?P<word>{'|'.join(WORDS)})[-_]patch|(?:vit|metaclip)[-_](?P<letters>{'|'.join(SIZES)})[-_]?)"
    r"(?P<patch>\d\d)(?!\d)"
)
#: Parts of the names of models with another text tower, or other layers, than the released models of their size.
OTHERS = re.compile(r"bert|mt5|coca|worldwide|plus|eva|pe[-_]core|[-_]alt(?:[-_]|$)")
#: The edge of a picture, behind the size. Other numbers of three digits are no edges.
EDGES = re.compile(r"[-_](224|240|256|280|320|336|378|384|448|512)(?=$|[-_.x])")
EDGE = 224  # of models whose name has none
NAFLEX = 16  # patches per edge of a square picture in a NaFlex model, which takes 256 patches by default


class Tower(NamedTuple):
    """The size of a model."""

    parameters: int  #: of both towers
    edge: int  #: width and height of its pictures
    tokens: int  #: of a picture
    values: int  #: numbers per token that lie in memory at once at most, in the model's dtype


DEMO = Tower(27_000_000, EDGE, 1, 3_700_000)  # a convolutional tower: all numbers are those of one token


def tower(spec: str) -> Tower | None:
    """The size of the model of a spec, by its name; None if the name does not say it."""
    parsed = Spec.parse(spec)
    if parsed.kind == "demo":
        return DEMO
    name = _name(parsed)
    found = SIZED.search(name)
    if found is None or OTHERS.search(name):
        return None
    size = SIZES[found["letters"] or WORDS[found["word"]]]
    family = next((each for each in ("siglip2", "siglip", "aimv2") if each in name), "clip")
    vocabulary = " i18n" if family == "siglip" and re.search("i18n|multilingual", name) else ""
    if family + vocabulary not in size.millions:
        return None
    patch, stated = int(found["patch"]), EDGES.search(name, found.end())
    edge = NAFLEX * patch if "naflex" in name else int(stated[1]) if stated else EDGE
    tokens = (edge // patch) ** 2 + (family == "clip")  # CLIP's towers have a token of the class
    return Tower(size.millions[family + vocabulary] * 10**6, edge, tokens, ALIVE * (size.width + size.hidden))


def _name(spec: Spec) -> str:
    """The name of a model, or of its repository or folder, in lower case."""
    if spec.path is not None:
        return Path(spec.path).name.lower()
    return (spec.repository()[0].rpartition("/")[2] if spec.on_hub else spec.pretrained()[0]).lower()


class Memory(NamedTuple):
    """Bytes of a GPU's memory that embedding with a model, or with some models in one pass, takes."""

    weights: int
    batch: int  #: pixels and the tensors of a forward pass
    besides: int = BESIDES

    @property
    def total(self) -> int:
        """All bytes together."""
        return sum(self)


def memory(spec: str, dtype: str, images: int) -> Memory | None:
    """The memory of embedding with a model, with so many images in a batch; None if its name does not say its size.

    Two batches of pixels are under way.
    """
    found = tower(spec)
    if found is None:
        return None
    size = BYTES[dtype]
    pixels = 3 * found.edge**2 * (2 + 2 * LOADED + size)  # as bytes, twice; in float32, with a copy; and in the dtype
    return Memory(LOADED * found.parameters, images * (pixels + size * found.tokens * found.values))


def together(models: Sequence[Memory], at_once: int | None = None) -> Memory:
    """The memory of a pass with several models: all weights, and the largest batch, since one model runs at a time.

    at_once: the largest number of models in a pass. Those with the most weights are taken.
    """
    weights = sorted((model.weights for model in models), reverse=True)
    return Memory(sum(weights[:at_once]), max(model.batch for model in models))
