"""What it costs to make a dataset, in bytes and seconds: one formula per kind of dataset.

The constants were measured with `make demo` and `make planted` on a machine with 2 cores and no accelerator.
`flows.rates` corrects the costs by what the datasets in the store took. This module reads no file.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple


class Work(NamedTuple):
    """The numbers that the cost of a dataset depends on. A number that does not apply to its kind is 0."""

    images: int = 0
    captions: int = 0
    picture_bytes: int = 0  #: bytes of all pictures; 0 for a source without pictures
    counted: float = 1.0  #: share of the pairs that the statistics count
    trained: float = 1.0  #: share of the pairs that SAEs are trained on
    models: int = 1
    dim: int = 0
    spec: str = ""  #: spec of the model
    dtype: str = "float32"
    width: int = 0  #: number of concepts of the SAE; for the tables, the page and the explorer, the sum over all SAEs
    k: int = 0
    epochs: float = 0
    points: int = 0  #: points of the frontier: methods times values of k; 0 for a study without a frontier

    @property
    def rows(self) -> int:
        """Images and captions."""
        return self.images + self.captions


class Cost(NamedTuple):
    """Bytes on disk and seconds of one dataset."""

    bytes: float
    seconds: float


PREFECT_SECONDS = 10.0  #: the start of Prefect
STAGE_SECONDS = 0.4  #: the start of one sub-flow
TASK_SECONDS = 0.04  #: Prefect's part of one task, whether its dataset is made or adopted

#: (part of a spec, seconds per image, seconds per caption). The first part that the model's spec contains counts.
EMBED_SECONDS = (
    ("demo:", 0.018, 0.0045),
    ("embeddings:", 4e-6, 4e-6),
    ("B-32", 0.066, 0.012),
    ("patch32", 0.066, 0.012),
    ("-L-", 1.1, 0.05),
    ("large", 1.1, 0.05),
    ("aimv2", 1.1, 0.05),
    ("so400m", 2.5, 0.1),
    ("-H-", 3.0, 0.1),
    ("", 0.24, 0.03),
)
BFLOAT16 = 0.45  # seconds in bfloat16 divided by seconds in float32, on a CPU with AVX512-BF16
#: (part of a spec, dimensions of the model's embeddings). The first part that the model's spec contains counts.
DIMENSIONS = (
    ("demo:", 128), ("clip-vit-large", 768), ("clip-vit", 512), ("siglip", 768), ("aimv2", 768), ("SigLIP", 768),
    ("ViT-B-", 512), ("ViT-L-", 768), ("ViT-H-", 1024), ("ViT-g", 1024), ("clip", 512), ("", 768),
)  # fmt: skip


FORMULAS: dict[str, Callable[[Work], Cost]] = {}  #: {kind of dataset: formula of its cost}
#: {kind: extra seconds of the first dataset of this kind in a run, for imports, compilation and new processes}
STARTUP: dict[str, float] = {}


def formula_of(kind: str, startup: float = 0.0) -> Callable[[Callable[[Work], Cost]], Callable[[Work], Cost]]:
    """Decorator that registers a function as the formula of a kind of dataset. startup: see STARTUP."""

    def add(formula: Callable[[Work], Cost]) -> Callable[[Work], Cost]:
        FORMULAS[kind], STARTUP[kind] = formula, startup
        return formula

    return add


def dimension_of(spec: str) -> int:
    """Number of dimensions of a model's embeddings, from the model's spec."""
    return next(dim for part, dim in DIMENSIONS if part in spec)


@formula_of("acquire", startup=1.0)
@formula_of("fetch", startup=1.0)
def _pairs(work: Work) -> Cost:
    """Pictures are stored unchanged, with keys, sizes and digests. For vectors, only keys and captions are stored."""
    if not work.picture_bytes:
        return Cost(20 * work.images + 14 * work.captions, 0.1 + 1e-5 * work.rows)
    return Cost(work.picture_bytes + 160 * work.images + 40 * work.captions, 0.1 + 1.2e-3 * work.images)


@formula_of("features", startup=8.0)
def _features(work: Work) -> Cost:
    """Features from the demo's towers for the training pairs: 1,280 numbers per image and 384 per caption."""
    return Cost(4 * work.trained * (1280 * work.images + 384 * work.captions), 0.04 * work.images)


@formula_of("model", startup=2.0)
def _model(work: Work) -> Cost:
    """The bytes are those of the weights of the demo's towers. The projections are too small to count."""
    return Cost(105.5e6, 2.0 + 1e-3 * work.images)


@formula_of("embed", startup=3.0)
def _embed(work: Work) -> Cost:
    """Embeddings are stored as float16, in whole chunks of 1,024 rows."""
    chunks = ceil(work.images / 1024) + ceil(work.captions / 1024)
    image, caption = next((image, caption) for part, image, caption in EMBED_SECONDS if part in work.spec)
    seconds = image * work.images + caption * work.captions
    return Cost(chunks * 1024 * work.dim * 2 + 4400, seconds * (BFLOAT16 if work.dtype == "bfloat16" else 1))


def _steps(work: Work) -> float:
    """Seconds of a training. Each row costs a constant, plus a part proportional to dimension times width."""
    return work.trained * work.rows * work.epochs * (6e-6 + 2.2e-11 * work.dim * work.width)


@formula_of("train", startup=14.0)
def _train(work: Work) -> Cost:
    """The encoder and the decoder are stored, in float32."""
    return Cost(8 * work.width * work.dim + 12 * work.width + 4 * work.dim + 3000, _steps(work))


@formula_of("export")
def _export(work: Work) -> Cost:
    """A code takes about five bytes."""
    return Cost(5 * 1.05 * work.rows * work.k + 1000, 0.05 + work.rows * (1e-5 + 2e-11 * work.dim * work.width))


@formula_of("atoms")
def _atoms(work: Work) -> Cost:
    """The dictionary is stored in float32."""
    return Cost(4 * work.width * work.dim + 8 * work.width + 3000, 0.05 + 1e-9 * work.width * work.dim)


@formula_of("space", startup=1.0)
def _space(work: Work) -> Cost:
    return Cost(15_000, 0.3 + 3e-5 * work.counted * work.rows)


def _table_bytes(work: Work) -> float:
    """Bytes of the tables of concepts and bridges.

    Each concept has more bridges when more rows are counted, but at most bridges to 4,096 concepts.
    """
    return work.width * (770 + min(0.112 * work.counted * work.rows, 14 * 4096))


@formula_of("measures", startup=8.0)
def _measures(work: Work) -> Cost:
    return Cost(_table_bytes(work), 1.6 + work.counted * work.rows * (2e-4 + 4e-11 * work.dim * work.width))


@formula_of("names", startup=4.0)
def _names(work: Work) -> Cost:
    """Words are counted in all captions; each name is encoded as a caption and compared with the held-out items."""
    caption = next(caption for part, _, caption in EMBED_SECONDS if part in work.spec)
    encoded = caption * work.width * (BFLOAT16 if work.dtype == "bfloat16" else 1)
    compared = work.width * (1 - work.trained) * work.rows * (2e-8 + 2e-11 * work.dim)
    return Cost(80 * work.width, 0.3 + 2e-5 * work.captions + encoded + compared)


@formula_of("matching", startup=0.5)
def _matching(work: Work) -> Cost:
    return Cost(27 * work.width, 0.1 + 2e-11 * work.width**2 * work.dim)


def _correlated(work: Work, tables: int) -> Cost:
    """Each of the compared modalities has a row per concept, a pass over the codes, an assignment, and 20 draws."""
    codes = work.counted * work.rows * work.k**2
    return Cost(tables * 60 * work.width, 0.3 + tables * (2e-9 * codes + 3e-8 * work.width**2 + 1e-4 * work.width))


@formula_of("partners", startup=1.0)
def _partners(work: Work) -> Cost:
    return _correlated(work, 4)


@formula_of("correspondence", startup=1.0)
def _correspondence(work: Work) -> Cost:
    return _correlated(work, 2)


@formula_of("analyze")
def _analyze(work: Work) -> Cost:
    return Cost(0.92 * _table_bytes(work), 0.5 + 1e-4 * work.width)


@formula_of("frontier", startup=4.0)
def _frontier(work: Work) -> Cost:
    return Cost(2500 + 420 * work.points, work.points * (0.2 + 0.3 * _steps(work)))


@formula_of("report", startup=12.0)
def _report(work: Work) -> Cost:
    """The page and its figures are in the store twice: in the dataset, and in report/<study>."""
    frontier = 8.5e5 if work.points else 0
    return Cost(2 * (0.5e6 + (1.75e6 + frontier) * work.models), 4.0 + 2.0 * work.models)


@formula_of("layout", startup=30.0)
def _layout(work: Work) -> Cost:
    return Cost(16.5 * work.width, 0.4 + 2e-4 * work.width)


@formula_of("item_layout", startup=10.0)
def _item_layout(work: Work) -> Cost:
    """UMAP is fitted on at most 20,000 items; the others are compared with these."""
    items = work.images + work.captions
    return Cost(16 * items + 500, 1.0 + 2.5e-3 * min(items, 20_000) + 4e-4 * max(0, items - 20_000))


@formula_of("explorer", startup=4.0)
def _explorer(work: Work) -> Cost:
    """Thumbnails of the pictures are stored, and data for each concept."""
    thumbnails = 400 * work.images if work.picture_bytes else 0
    return Cost(0.4e6 + thumbnails + 4300 * work.width, 1.0 + 3e-3 * work.width)


def _small(work: Work) -> Cost:
    return Cost(6000, 0.1)


def cost(kind: str, work: Work) -> Cost:
    """Cost of one dataset of a kind, without the seconds in STARTUP. A kind without a formula gets a small cost."""
    return FORMULAS.get(kind, _small)(work)
