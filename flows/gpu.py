"""What a study takes of a GPU's memory, for `plan`: estimated, one line per model. Nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from flows.config import Study
from flows.sections import SAESetting
from flows.sizes import Sizes
from storage.runs import Key
from tasks.memory import of_embedding, of_pass, of_training

#: files that only a machine with an NVIDIA driver has; the last one stands for it under WSL
DRIVER = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia"), Path("/dev/dxg"))


def on_gpu(study: Study) -> bool:
    """Whether the models and SAEs of a study run on a GPU, seen without importing torch.

    With the device "auto" this machine is looked at, but not where Ray runs the tasks: its machines may have GPUs,
    unless `num_gpus` is 0.
    """
    runtime = study.runtime
    if runtime.device != "auto":
        return runtime.device != "cpu"
    return runtime.num_gpus != 0 if runtime.runner == "ray" else any(path.exists() for path in DRIVER)


def gpu_lines(study: Study, sizes: Sizes) -> list[str]:
    """What a batch of images takes, the SAEs of the setting that takes most, and all models of a pass, to print.

    None without a GPU. Nothing is said about a model whose name does not say its size, but that it is left out of the
    pass.
    """
    if not on_gpu(study):
        return []
    lines = [_line(study, sizes, model.name) for model in study.models]
    return [line for line in (*lines, _pass_line(study)) if line]


def _line(study: Study, sizes: Sizes, name: str) -> str:
    model = next(model for model in study.models if model.name == name)
    parts = []
    if not model.parsed_spec.is_vectors:
        total, images = of_embedding(model.spec, model.dtype, study.runtime.embed_batch_size)
        if total is not None:
            parts.append(f"embedding {images} images at a time {_gigabytes(total)}")
    found = []
    for setting in study.settings():
        if isinstance(setting, SAESetting):
            work = sizes.work(Key("train", name, setting.name, setting.seeds[0]))
            rows = round(work.trained * work.rows * (1 if setting.data_half is None else 0.5))
            each = of_training(setting.setting(round(work.trained * work.rows)), rows, work.dim, len(setting.seeds))
            found.append((each.alone, each.together, setting))
    if found:
        alone, together, setting = max(found, key=lambda each: each[:2])
        parts.append(f"an SAE of {setting.name} {_gigabytes(alone)}")
        if len(setting.seeds) > 1:
            parts.append(f"its {len(setting.seeds)} seeds together {_gigabytes(together)}")
    return f"memory of a GPU for {name}, estimated: {', '.join(parts)}" if parts else ""


def _pass_line(study: Study) -> str:
    """What the models of a pass over a shard take together. Empty where a pass has one model."""
    runtime = study.runtime
    models = {model.name: (model.spec, model.dtype) for model in study.models if not model.parsed_spec.is_vectors}
    found = of_pass(models, runtime.embed_batch_size, runtime.models_at_once)
    if found is None:
        return ""
    besides = f", besides {', '.join(found.unknown)}, of unknown size" if found.unknown else ""
    return f"memory of a GPU for a pass with {found.models} models, estimated: {_gigabytes(found.total)}{besides}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
