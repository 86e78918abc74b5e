"""How much memory of a GPU embedding takes: estimated from a model's spec, before anything is loaded. Imports no torch.

The numbers are those of the released sizes; tests count them again by building these models without a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

from vlm.zoo import ZOO

#: What torch, cuBLAS and the driver hold on a GPU, and gaps between tensors. Assumed, not measured.
BESIDES = 2**30
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LOADED = 4  # bytes of a weight: weights are loaded in float32, whatever they are cast to
#: Tensors [images, tokens, width] that lie in memory at once at most, in a layer of a transformer: the input of the
#: first layer, which is kept to the end, its own input, the norm of it, and three of four times the width in its last
#: part.
ALIVE = 15


class Tower(NamedTuple):
    """The size of a model."""

    parameters: int  #: of both towers
    values: int  #: numbers per image that lie in memory at once at most, in its dtype
    edge: int = 224  #: width and height of its pictures


def transformer(parameters: float, tokens: int, width: int, edge: int = 224) -> Tower:
    """The size of a model whose image tower is a transformer. parameters: in millions."""
    return Tower(round(parameters * 1e6), ALIVE * tokens * width, edge)


#: (part of a spec, size). The first part that the model's spec contains counts.
TOWERS = (
    ("demo:", Tower(27_000_000, 3_700_000)),
    ("patch32", transformer(151, 50, 768)),
    ("B-32", transformer(151, 50, 768)),
    ("so400m", transformer(1136, 729, 1152, 384)),
    ("SO400M", transformer(1136, 729, 1152, 384)),
    ("siglip-large", transformer(652, 256, 1024, 256)),
    ("siglip2-large", transformer(882, 256, 1024, 256)),
    ("siglip2", transformer(375, 196, 768)),
    ("SigLIP2", transformer(375, 196, 768)),
    ("siglip", transformer(203, 196, 768)),
    ("SigLIP", transformer(203, 196, 768)),
    ("aimv2", transformer(435, 256, 1024)),
    ("large", transformer(428, 257, 1024)),
    ("-L-", transformer(428, 257, 1024)),
    ("-H-", transformer(986, 257, 1280)),
    ("-g-", transformer(1367, 257, 1408)),
    ("", transformer(151, 197, 768)),
)


class Memory(NamedTuple):
    """Bytes of a GPU's memory that embedding with a model takes."""

    weights: int
    batch: int  #: pixels and the tensors of a forward pass
    besides: int = BESIDES

    @property
    def total(self) -> int:
        """All bytes together."""
        return sum(self)


def memory(spec: str, dtype: str, images: int) -> Memory:
    """The memory of embedding with a model, with so many images in a batch. Two batches of pixels are under way."""
    known = ZOO[spec].spec if spec in ZOO else spec
    tower = next(tower for part, tower in TOWERS if part in known)
    size = BYTES[dtype]
    pixels = 3 * tower.edge**2 * (2 + 2 * LOADED + size)  # as bytes, twice; in float32, with a copy; and in the dtype
    return Memory(LOADED * tower.parameters, images * (pixels + size * tower.values))
