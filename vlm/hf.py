"""Encoders from transformers: CLIP, SigLIP, SigLIP2 (fixed resolution and NaFlex) and AIMv2's `lit` checkpoint.

Each family has its own image processor and tokenizer, configured by the checkpoint's files. A hub repository is first
resolved to a commit, and the files of this commit are put into a cache folder. So a hub model is loaded in the same way
as any folder of the same files. Code from the hub is never run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vlm import hub
from vlm.checkpoint import OPEN_CLIP, TRANSFORMERS, CheckpointError, file_hashes, library_versions, weight_files
from vlm.encoder import Encoder, Tokens, resolve_device
from vlm.pixels import of_processor
from vlm.spec import Spec, SpecError
from vlm.text_ends import end_texts, stated_settings
from vlm.thin import BILINEAR, Crop, bounded, centre, squashed, unchanged

if TYPE_CHECKING:
    import torch
    from PIL import Image

LIBRARIES = ("transformers", "tokenizers", "sentencepiece", "torch", "torchvision", "pillow")
IMAGE_SETTINGS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_convert_rgb", "patch_size", "max_num_patches",
)  # fmt: skip
POSITIONS = "position_ids"  # older checkpoints list the positions 0, 1, 2, ..., which models now make themselves
LIT = "hf:apple/aimv2-large-patch14-224-lit"


class Family(NamedTuple):
    """How a family of models treats text. For pictures, families differ only in their image processors."""

    model: str  #: the name of the class in transformers
    causal: bool  #: no token attends to a later token, so removing the padding after a text changes no embedding
    lower: bool  #: text must be lower-cased first; CLIP's tokenizer lower-cases by itself
    context: int  #: context length in tokens, used if the checkpoint's configuration states none
    #: AIMv2's text tower gets an explicit causal mask, since its modules are not marked as causal and transformers
    #: drops a mask of ones. Without the explicit mask, tokens would attend to later tokens in a batch that has no
    #: padding, but not in a batch that has padding.
    own_mask: bool = False


FAMILIES = {
    "clip": Family("CLIPModel", causal=True, lower=False, context=77),
    "siglip": Family("SiglipModel", causal=False, lower=True, context=64),
    "siglip2": Family("Siglip2Model", causal=False, lower=True, context=64),
    "aimv2": Family("Aimv2Model", causal=True, lower=False, context=77, own_mask=True),
}


class HFEncoder(Encoder):
    """A transformers dual encoder with its image processor and tokenizer.

    Args:
        model: float32 on the CPU; it is moved, cast and set to evaluation mode.
        family: how its text tower treats captions.
        image_processor: turns pictures into the input of the image tower.
        tokenizer: the checkpoint's tokenizer; its `model_input_names` say whether the text tower gets a mask.
        source: the JSON-ready part of the identity that says which weights the model has.
        device: a torch device; "auto" is already resolved.
        dtype: one of `vlm.encoder.DTYPES`.
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        image_processor: Any,
        tokenizer: Any,
        source: dict[str, Any],
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        import torch

        self.device, self.dtype, self.family = device, getattr(torch, dtype), family
        self.model = model.to(device=device, dtype=self.dtype).eval()
        self.model.requires_grad_(False)
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.bounded = _bounded(image_processor)
        self.pixels = of_processor(image_processor, self.preprocess, self.bounded)
        positions = getattr(model.config.text_config, "max_position_embeddings", family.context)
        self.context = min(int(tokenizer.model_max_length), int(positions))
        self.lower = family.lower and tokenizer.init_kwargs.get("do_lower_case") is not False
        # SigLIP was trained without a mask, and its released tokenizers return no mask.
        self.masked = not family.own_mask and "attention_mask" in tokenizer.model_input_names
        self.dim = int(self.token_features(self.tokenize([""]).inputs).shape[1])
        self.identity = {
            **source,
            "dim": self.dim,
            "dtype": dtype,
            "preprocess": _image_settings(image_processor),
            "tokenizer": {
                "class": type(tokenizer).__name__,
                "context_length": self.context,
                "lower": self.lower,
                "padding": "to the longest of the batch" if family.causal else "to the full context",
                "mask": "causal" if family.own_mask else self.masked,
            },
            "versions": library_versions(LIBRARIES),
        }

    def preprocess(self, image: Image.Image) -> Any:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        given = self.image_processor(images=self.bounded(rgb), return_tensors="pt")
        values = {name: given[name][0] for name in self.image_processor.model_input_names}
        return values if len(values) > 1 else values["pixel_values"]

    def image_features(self, batch: Any) -> torch.Tensor:
        import torch

        inputs = batch if isinstance(batch, dict) else {"pixel_values": batch}
        if not len(inputs["pixel_values"]):
            return torch.empty(0, self.dim)
        moved = {name: values.to(self.device) for name, values in inputs.items()}
        moved["pixel_values"] = moved["pixel_values"].to(self.dtype)
        with torch.inference_mode():
            return pooled(self.model.get_image_features(**moved)).float()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        import torch

        given = [text.lower() for text in texts] if self.lower else list(texts)
        ids = self.tokenizer(given, padding=False, truncation=False, verbose=False)["input_ids"]
        cut = [row for row, tokens in enumerate(ids) if len(tokens) > self.context]
        if cut:
            again = [given[row] for row in cut]
            shorter = self.tokenizer(again, padding=False, truncation=True, max_length=self.context)["input_ids"]
            for row, tokens in zip(cut, shorter, strict=True):
                ids[row] = tokens
        lengths = torch.tensor([len(tokens) for tokens in ids])
        width = int(lengths.max()) if self.family.causal else self.context
        padded = torch.full((len(ids), width), int(self.tokenizer.pad_token_id))
        for row, tokens in enumerate(ids):
            at = width - len(tokens) if self.tokenizer.padding_side == "left" else 0
            padded[row, at : at + len(tokens)] = torch.tensor(tokens)
        inputs = {"input_ids": padded}
        if self.masked:
            inputs["attention_mask"] = (torch.arange(width)[None] < lengths[:, None]).long()
            if self.tokenizer.padding_side == "left":
                inputs["attention_mask"] = inputs["attention_mask"].flip(1)
        truncated = torch.zeros(len(ids), dtype=torch.bool)
        truncated[cut] = True
        return Tokens(inputs, lengths if self._trims() else torch.full_like(lengths, width), truncated)

    def _trims(self) -> bool:
        return self.family.causal and self.tokenizer.padding_side == "right"

    def token_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch

        moved = {name: values.to(self.device) for name, values in inputs.items()}
        if self.family.own_mask:  # mask [B, 1, L, L]: each token attends to itself and to earlier tokens
            rows, width = moved["input_ids"].shape
            seen = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
            moved["attention_mask"] = seen.expand(rows, 1, width, width)
        with torch.inference_mode():
            return pooled(self.model.get_text_features(**moved)).float()


def _bounded(processor: Any) -> Callable[[Image.Image], Image.Image]:
    """What an extremely thin picture goes through before this image processor; see `vlm.thin`.

    CLIP's and AIMv2's processors resize the shortest side and crop. SigLIP's resize to a fixed size, and NaFlex to a
    bounded number of patches.
    """
    given = processor.to_dict()
    size, window = given.get("size") or {}, given.get("crop_size") or {}
    resample = BILINEAR if given.get("resample") is None else int(given["resample"])
    if not given.get("do_resize"):
        return unchanged
    if size.get("shortest_edge") and given.get("do_center_crop"):
        edge = size["shortest_edge"]
        return functools.partial(centre, crop=Crop((edge, edge), (window["width"], window["height"]), resample))
    if size.get("height") and size.get("width"):
        return functools.partial(squashed, size=(size["width"], size["height"]), resample=resample)
    return bounded


def pooled(features: Any) -> torch.Tensor:
    """The embeddings [B, dim] from what `get_image_features` returns: a tensor in transformers 4, an object in 5."""
    return getattr(features, "pooler_output", features)


def load_hf(spec: Spec, device: str, dtype: str) -> HFEncoder:
    """The encoder of a spec of the kind "hf": a repository of the hub, or a folder. Raises `SpecError`."""
    place = resolve_device(device)
    if spec.path is not None:
        folder = Path(spec.path).expanduser().absolute()
        if not folder.is_dir():
            raise SpecError(f"model spec {spec}: there is no such folder")
        source: dict[str, Any] = {"kind": "hf"}
    else:
        commit = hub.resolve(spec)
        folder = hub.snapshot(spec, commit)
        source = {"kind": "hf", "repository": spec.repository()[0], "revision": commit}
    model_type, family = _family(folder, spec)
    try:
        if spec.path is not None:
            source["files"] = file_hashes(folder, TRANSFORMERS)
        model = _model(folder, family)
        processor, tokenizer = _processors(folder)
    except Exception as error:  # safetensors, the unpickler and the tokenizers each raise their own errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpecError(f"model spec {spec}: transformers cannot load it: {reason}") from error
    return HFEncoder(model, family, processor, tokenizer, {**source, "model": model_type}, place, dtype)


def _family(folder: Path, spec: Spec) -> tuple[str, Family]:
    """(model type, family) of a checkpoint with weights, from its config.json. Raises `SpecError`."""
    there = folder if spec.path is not None else "the repository"
    try:
        config = json.loads((folder / "config.json").read_text())
        model_type = str(config["model_type"])
    except FileNotFoundError:
        instead = f": write {spec.as_kind('open_clip')}" if (folder / OPEN_CLIP.config).is_file() else ""
        raise SpecError(f"model spec {spec}: {there} holds no config.json{instead}") from None
    except (ValueError, KeyError, TypeError):
        raise SpecError(f"model spec {spec}: the config.json of {there} is not JSON with a model_type") from None
    if model_type.startswith("aimv2") and (model_type != "aimv2" or "text_config" not in config):
        raise SpecError(f"model spec {spec}: this AIMv2 checkpoint has no text tower and no joint space; {LIT} has one")
    if model_type not in FAMILIES:
        allowed = ", ".join(FAMILIES)
        raise SpecError(f"model spec {spec}: model type {model_type!r}: allowed are {allowed} (with both towers)")
    try:
        weight_files(folder, TRANSFORMERS)
    except CheckpointError as error:
        raise SpecError(f"model spec {spec}: {there}: {error}") from error
    return model_type, FAMILIES[model_type]


def _model(folder: Path, family: Family) -> Any:
    """Load the model with all its weights.

    Raises ValueError for a weight that is missing, which transformers would make random, and for a weight in the file
    that the model has no place for, which transformers would leave out.
    """
    import torch
    import transformers

    model, info = getattr(transformers, family.model).from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=any(path.suffix == ".safetensors" for path in weight_files(folder, TRANSFORMERS)),
        trust_remote_code=False,
        attn_implementation="sdpa",
        weights_only=True,
        output_loading_info=True,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(f"the weights lack {len(missing)} tensors, among them {missing[0]}")
    unused = sorted(name for name in info["unexpected_keys"] if not name.endswith(POSITIONS))
    if unused:
        raise ValueError(f"the model has no place for {len(unused)} tensors of the weights, among them {unused[0]}")
    if family.model == "Aimv2Model" and not model.config.vision_config.use_head:
        raise ValueError("its image tower has no head (use_head is false), so it gives no embedding")
    return model


def _processors(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoTokenizer

    image_processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    wanted = stated_settings(folder).get("tokenizer_class")
    if wanted == "SiglipTokenizer" and type(tokenizer).__name__ != wanted:
        # Without sentencepiece another tokenizer class is used, which keeps the punctuation that SigLIP removes.
        raise ImportError("SigLIP's tokenizer needs sentencepiece and protobuf: pip install sentencepiece protobuf")
    end_texts(tokenizer, folder)
    return image_processor, tokenizer


def _image_settings(processor: Any) -> dict[str, Any]:
    given = processor.to_dict()
    kept = {name: given[name] for name in IMAGE_SETTINGS if given.get(name) is not None}
    settings = json.loads(json.dumps(kept, default=lambda value: getattr(value, "value", None) or str(value)))
    return {"class": type(processor).__name__, **settings}
