"""A trained sparse autoencoder: encode, decode, save, load.

Inference only; training is in `sae.training`.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError, create_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES, PARAMETERS, check_parameters
from sae.pursuit import matching_pursuit
from sae.settings import FIRST_EDITION, FROZEN, NEWER, Settings, Stated
from sae.sparsity import SELECT, above

WEIGHTS_FILE = "sae.safetensors"
CONFIG_FILE = "config.json"
TENSORS = ("encoder", "encoder_bias", "dictionary", "bias", "threshold")
MEANS = {"image": "mean_image", "text": "mean_text"}  # additional tensors of an SAE with per-modality centring


class SAEFormatError(ValueError):
    """An SAE's files or tensors are not what this project writes; the message names the file and the fault."""

    exit_code: ClassVar[int] = 2


if TYPE_CHECKING:

    class Config(Settings):
        """The SAE's settings and what it was trained on."""

        image_share: float | str  # type: ignore[assignment]
        noise: float = 0.0
        dim: int
        seed: int
        rows_seen: int
        preprocessing: str = "l2"
        consensus_of: tuple[int, ...] | None = None
else:
    _settings = {
        name: (Any, ... if name in FIRST_EDITION and name not in NEWER else field.default)
        for name, field in Settings.model_fields.items()
    }
    _settings["noise"] = (Any, 0.0)  # an SAE was trained with a number, and with none before there was this setting
    Config = create_model(
        "Config",
        __base__=Stated,
        __module__=__name__,
        __doc__="""An SAE's settings and what it was trained on: the contents of config.json.

        Holds no times, paths or versions, so that equal SAEs have equal files. The settings are those of
        `sae.settings`, without their limits: an imported SAE, whose training is not known, has 0 for its numbers. A
        file may lack keys that have a default. dim: d, length of an embedding. rows_seen: number of rows drawn in the
        whole training. preprocessing: "l2" if rows are L2-normalised before encoding, or "none". consensus_of: the
        seeds whose shared atoms a consensus SAE has, else None.
        """,
        dim=int,
        **_settings,
        seed=int,
        rows_seen=int,
        preprocessing=(str, "l2"),
        consensus_of=(tuple[int, ...] | None, None),
    )


def pre_activations(x_BD: Tensor, encoder_CD: Tensor, encoder_bias_C: Tensor, bias_D: Tensor) -> Tensor:
    """(x - b) W_enc^T + b_enc: [B, C] from rows [B, d] that are already preprocessed."""
    return torch.addmm(encoder_bias_C, x_BD - bias_D, encoder_CD.T)


class SAE:
    """A sparse autoencoder with its inference rule; float32 tensors.

    encoder: [C, d]. encoder_bias: [C]. dictionary: [C, d], rows of unit norm, row i the direction of concept i.
    bias: [d], zeros without a decoder bias. threshold: >= 0, one number or [C], one per concept.
    mean_image, mean_text: [d], both or neither: subtracted from rows of that modality first (per-modality centring).
    The inference rule keeps pre-activations above the threshold; topk has no threshold and selects as in training. An
    SAE with encoder = "pursuit" in its config, and every mp, finds codes by non-negative matching pursuit with its
    dictionary instead, k steps per row, after the bias is subtracted.
    Raises SAEFormatError where a shape, a norm or a value differs from this.
    """

    def __init__(
        self,
        encoder: Tensor,
        encoder_bias: Tensor,
        dictionary: Tensor,
        bias: Tensor,
        threshold: Tensor,
        config: Config,
        mean_image: Tensor | None = None,
        mean_text: Tensor | None = None,
    ) -> None:
        tensors = dict(zip(TENSORS, (encoder, encoder_bias, dictionary, bias, threshold), strict=True))
        means = {"mean_image": mean_image, "mean_text": mean_text}
        tensors |= {name: mean for name, mean in means.items() if mean is not None}
        _check_tensors(tensors, config, "SAE")
        if config.encoder == "pursuit" and not 1 <= config.k <= config.width:
            raise SAEFormatError(f"k is {config.k}; pursuit takes k steps per row, 1 to the width, {config.width}")
        self.encoder = encoder.detach()
        self.encoder_bias = encoder_bias.detach()
        self.dictionary = dictionary.detach()
        self.bias = bias.detach()
        self.threshold = threshold.detach()
        self.mean_image = None if mean_image is None else mean_image.detach()
        self.mean_text = None if mean_text is None else mean_text.detach()
        self.config = config

    @torch.no_grad()
    def encode(self, x: np.ndarray | Tensor, modality: str | None = None) -> Tensor:
        """Codes [N, C] >= 0 of embeddings x [N, d] (any float type, any norm), by the rule of the architecture.

        modality: "image" or "text"; needed only with per-modality centring. Raises ValueError if it is needed and not
        given, if x does not have d columns, or if x holds NaN or infinity: the codes of such a row would all be 0, as
        for a row on which no concept fires.
        """
        x_ND = self._centred(x, modality)
        if self.pursues:
            return matching_pursuit(x_ND - self.bias, self.dictionary, self.config.k)
        pre_NC = pre_activations(x_ND, self.encoder, self.encoder_bias, self.bias)
        name = self.config.architecture
        if ARCHITECTURES[name].threshold == "none":
            return SELECT[name](pre_NC, self.threshold, self.config, pre_NC.new_zeros(())).codes
        return above(pre_NC, self.threshold)

    @torch.no_grad()
    def pre_activations(
        self, x: np.ndarray | Tensor, modality: str | None = None, concepts: slice = slice(None)
    ) -> Tensor:
        """Pre-activations [N, concepts] of embeddings x [N, d], from which `encode` selects codes, of any sign.

        Raises ValueError where `encode` does, and for an SAE whose codes are found by pursuit: it has none.
        """
        if self.pursues:
            raise ValueError("codes of this SAE are found by pursuit, which has no pre-activations")
        x_ND = self._centred(x, modality)
        return pre_activations(x_ND, self.encoder[concepts], self.encoder_bias[concepts], self.bias)

    @property
    def pursues(self) -> bool:
        """Whether codes are found by matching pursuit with the dictionary, not by the SAE's own encoder."""
        return self.config.encoder == "pursuit" or ARCHITECTURES[self.config.architecture].pursuit

    def encoding(self, encoder: str, k: int | None = None) -> "SAE":
        """The same SAE with another `encoder` in its config, and another k where one is given.

        Raises SAEFormatError where pursuit has no number of steps: neither k nor the config's k is above 0.
        """
        config = self.config.model_copy(update={"encoder": encoder, "k": self.config.k if k is None else k})
        return self.with_config(config)

    def with_config(self, config: Config) -> "SAE":
        """The same SAE with another config. Raises SAEFormatError where its tensors do not fit it."""
        return self._with(self.threshold, config)

    def with_threshold(self, threshold: Tensor) -> "SAE":
        """The same SAE with another threshold of inference, [] or [C]."""
        return self._with(threshold, self.config)

    def with_biases(self, encoder_bias: Tensor) -> "SAE":
        """The same SAE with other biases of the encoder, [C]."""
        return self._with(self.threshold, self.config, encoder_bias)

    def _with(self, threshold: Tensor, config: Config, encoder_bias: Tensor | None = None) -> "SAE":
        means = {name: getattr(self, name) for name in MEANS.values()}
        biases = self.encoder_bias if encoder_bias is None else encoder_bias
        return SAE(self.encoder, biases, self.dictionary, self.bias, threshold, config, **means)

    @torch.no_grad()
    def decode(self, codes: np.ndarray | Tensor, modality: str | None = None) -> Tensor:
        """Reconstructions x_hat = z D + b, [N, d], of codes z [N, C]. With centring the modality's mean is added."""
        mean_D = self._mean(modality)
        bias_D = self.bias if mean_D is None else self.bias + mean_D
        return torch.addmm(bias_D, self._rows(codes, self.config.width, "codes"), self.dictionary)

    def save(self, folder: str | Path) -> None:
        """Write `sae.safetensors` and `config.json` into folder (made if absent). Equal SAEs give equal bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = (*TENSORS, *(MEANS.values() if self.config.centring else ()))
        save_file({name: getattr(self, name).cpu().contiguous() for name in names}, folder / WEIGHTS_FILE)
        text = json.dumps(self.config.model_dump(mode="json"), indent=2, sort_keys=True)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "SAE":
        """Read what `save` wrote. Raises SAEFormatError, naming the file, where something is missing or wrong."""
        folder = Path(folder)
        config = _read_config(folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        tensors = read_safetensors(path, device)
        _check_tensors(tensors, config, str(path))
        names = (*TENSORS, *(MEANS.values() if config.centring else ()))
        return cls(**{name: tensors[name] for name in names}, config=config)

    def difference(self, other: "SAE") -> str | None:
        """The first setting or tensor that differs between two SAEs, bit by bit, in words; None if all are equal."""
        if self.config != other.config:
            return "their settings differ"
        for name in (*TENSORS, *(MEANS.values() if self.config.centring else ())):
            if not torch.equal(getattr(self, name).cpu(), getattr(other, name).cpu()):
                return f"their tensors {name} differ"
        return None

    def _centred(self, x: np.ndarray | Tensor, modality: str | None) -> Tensor:
        """Embeddings [N, d] as the encoder takes them: normalised, and less the mean of their modality."""
        x_ND = self._rows(x, self.config.dim, "x")
        if self.config.preprocessing == "l2":
            x_ND = normalize(x_ND, dim=1)
        mean_D = self._mean(modality)
        return x_ND if mean_D is None else x_ND - mean_D

    def _mean(self, modality: str | None) -> Tensor | None:
        """The mean that is subtracted from rows of a modality; None without centring."""
        if modality is not None and modality not in MEANS:
            raise ValueError(f'modality is {modality!r}; "image" or "text" is allowed')
        if not self.config.centring:
            return None
        if modality is None:
            raise ValueError('this SAE centres each modality separately: name one, "image" or "text"')
        mean_D: Tensor = getattr(self, MEANS[modality])
        return mean_D

    def _rows(self, values: np.ndarray | Tensor, columns: int, name: str) -> Tensor:
        rows = torch.as_tensor(values).to(self.dictionary.device, torch.float32)
        if rows.ndim != 2 or rows.shape[1] != columns:
            raise ValueError(f"{name} has shape {tuple(rows.shape)}; this SAE takes [rows, {columns}]")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{name} holds NaN or infinity")
        return rows


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Context in which SAEFormatError, naming the file, replaces the errors of a file that cannot be opened."""
    if path.is_dir():
        raise SAEFormatError(f"{path}: is a folder; a file is needed")
    try:
        yield
    except FileNotFoundError:
        raise SAEFormatError(f"{path}: no such file") from None
    except (NotADirectoryError, PermissionError) as error:
        raise SAEFormatError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises SAEFormatError, naming the file, if it holds no object."""
    try:
        with unreadable(path):
            entries = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SAEFormatError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(entries, dict):
        raise SAEFormatError(f"{path}: holds a {type(entries).__name__}; an object is needed")
    return entries


def read_safetensors(path: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises SAEFormatError, naming the file, where it cannot be read."""
    try:
        with unreadable(path):
            return dict(load_file(path, device=str(device)))
    except SafetensorError as error:
        raise SAEFormatError(f"{path}: not a readable safetensors file ({error})") from error


def _read_config(path: Path) -> Config:
    entries = read_json(path)
    fields = Config.model_fields
    needed = {name for name, field in fields.items() if field.is_required()}
    if missing := sorted(needed - set(entries)):
        raise SAEFormatError(f"{path}: missing key {', '.join(missing)}")
    if unknown := sorted(set(entries) - set(fields)):
        raise SAEFormatError(f"{path}: unknown key {', '.join(unknown)}; known are {', '.join(fields)}")
    _check_config(entries, path)
    return Config(**entries | _own_parameters(entries, path))


def _check_config(entries: dict[str, Any], path: Path) -> None:
    """Check the entries of a config.json. Raises SAEFormatError, naming the key and what is allowed."""

    def need(key: str, fits: bool, allowed: str) -> None:
        if not fits:
            raise SAEFormatError(f"{path}: {key} is {entries[key]!r}; {allowed}")

    for key in ("dim", "width", "k", "seed", "epochs", "batch_size", "rows_seen"):
        least = int(key in ("dim", "width"))
        need(key, type(entries[key]) is int and entries[key] >= least, f"a whole number from {least} is needed")
    for key in ("learning_rate", "auxk", "dead_after_epochs"):
        need(key, _is_number(entries[key]) and entries[key] >= 0, "a finite number from 0 is needed")
    share = entries["image_share"]
    is_share = _is_number(share) and 0 <= share <= 1
    need("image_share", is_share or share in ("natural", "unknown"), 'a number from 0 to 1 or "natural" is needed')
    need("architecture", entries["architecture"] in list(ARCHITECTURES), f"known are {', '.join(ARCHITECTURES)}")
    pursues, width = entries.get("encoder") == "pursuit", entries["width"]
    least = int(ARCHITECTURES[entries["architecture"]].threshold == "none" or pursues)
    of = "pursuit" if pursues else entries["architecture"]
    need("k", least <= entries["k"] <= width, f"{of} needs {least} to the width, {width}")
    k_aux = entries.get("k_aux")
    need("k_aux", k_aux is None or (type(k_aux) is int and k_aux >= 1), "a whole number from 1 or null is needed")
    seeds = entries.get("consensus_of")
    is_seeds = seeds is None or (isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds))
    need("consensus_of", is_seeds, "a list of seeds or null is needed")
    held = entries.get("calibration_share", 0.0)
    need("calibration_share", _is_number(held) and 0 <= held <= 0.5, "a number from 0 to 0.5 is needed")
    noise = entries.get("noise", 0.0)
    need("noise", _is_number(noise) and 0 <= noise <= 1, "a number from 0 to 1 is needed")
    named = {key: get_args(Settings.model_fields[key].annotation) for key in ("encoder_dtype", "encoder", "init")}
    allowed = {"preprocessing": ("l2", "none"), **named}
    frozen = entries.get("frozen")
    need("frozen", frozen is None or frozen in FROZEN, f"{', '.join(FROZEN)} or null are allowed")
    allowed |= dict.fromkeys(("centring", "decoder_bias"), (False, True))
    for key in allowed.keys() & entries.keys():
        fits = entries[key] in allowed[key] and type(entries[key]) is type(allowed[key][0])
        need(key, fits, f"{json.dumps(allowed[key])[1:-1]} are allowed")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _own_parameters(entries: dict[str, Any], path: Path) -> dict[str, Any]:
    """Those entries that only some architectures have (PARAMETERS), converted to their types."""
    parameters = {}
    for name in PARAMETERS.keys() & entries.keys():
        try:
            parameters[name] = TypeAdapter(PARAMETERS[name].type).validate_python(entries[name])
        except ValidationError as error:
            raise SAEFormatError(f"{path}: {name} is {entries[name]!r}: {error.errors()[0]['msg']}") from error
    try:
        check_parameters(entries["architecture"], entries["width"], parameters)
    except ValueError as error:
        raise SAEFormatError(f"{path}: {error}") from error
    return parameters


def _check_tensors(tensors: dict[str, Tensor], config: Config, where: str) -> None:
    width, dim = config.width, config.dim
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "encoder": ((width, dim),),
        "encoder_bias": ((width,),),
        "dictionary": ((width, dim),),
        "bias": ((dim,),),
        "threshold": ((), (width,)),
    }
    if config.centring:
        shapes |= dict.fromkeys(MEANS.values(), ((dim,),))
    elif means := sorted(set(MEANS.values()) & set(tensors)):
        raise SAEFormatError(f"{where}: has a tensor {means[0]}, but the config says centring = false")
    if unknown := sorted(set(tensors) - set(shapes)):
        raise SAEFormatError(f"{where}: unknown tensor {', '.join(unknown)}; known are {', '.join(shapes)}")
    for name, allowed in shapes.items():
        if name not in tensors:
            raise SAEFormatError(f"{where}: missing tensor {name}")
        tensor = tensors[name]
        if tuple(tensor.shape) not in allowed:
            needed = " or ".join(str(shape) for shape in allowed)
            raise SAEFormatError(f"{where}: {name} has shape {tuple(tensor.shape)}; the config says {needed}")
        if tensor.dtype != torch.float32:
            raise SAEFormatError(f"{where}: {name} is {tensor.dtype}; torch.float32 is needed")
        if not bool(torch.isfinite(tensor).all()):
            raise SAEFormatError(f"{where}: {name} holds NaN or infinity")
    off = float((tensors["dictionary"].norm(dim=1) - 1).abs().max())
    if off > 1e-4:
        raise SAEFormatError(f"{where}: a row of dictionary has a norm {off:.2g} away from 1; unit atoms are needed")
    if float(tensors["threshold"].min()) < 0:
        lowest = float(tensors["threshold"].min())
        raise SAEFormatError(f"{where}: threshold is {lowest:.3g}; it was never calibrated")
