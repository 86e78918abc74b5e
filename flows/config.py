"""The study file: the pydantic models of its sections, with every key and its limits, and the function `load_study`."""

from __future__ import annotations

import datetime
import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from flows.changes import apply
from flows.consensus import ConsensusSAE, consensus
from flows.neighbours import FACTORS, neighbours
from flows.nulls import NullName, Start, twins_of
from storage.errors import BadInput
from storage.sources.registry import SECTIONS, AnyPairs, located
from storage.sources.section import HOW, Section
from tasks.settings import ARCHITECTURES, BASELINES, FROZEN, PARAMETERS, ImageShare, Settings, budget
from tasks.specs import FORMS, Spec, forms, relocated

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
if TYPE_CHECKING:
    MethodName = str
    ForeignName = str
    Varied = str
else:
    Varied = Literal[tuple(FACTORS)]
    MethodName = Literal[tuple(ARCHITECTURES)] | Literal[tuple(BASELINES)]
    ForeignName = Literal[tuple(name for name, row in ARCHITECTURES.items() if row.foreign)]


class Model(Section):
    """A vision-language model."""

    name: Name = Field(description="name of the model in tables, pages and commands")
    spec: str = Field(description=f"one of {', '.join(forms(*FORMS))}")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description="float16 and bfloat16 cast the weights and check the first 256 items; part of the recipe",
    )

    @field_validator("spec")
    @classmethod
    def _known(cls, spec: str) -> str:
        Spec.parse(spec).check()
        return spec

    @property
    def parsed_spec(self) -> Spec:
        """The model's spec, parsed."""
        return Spec.parse(self.spec)


class SAESetting(Settings):
    """An SAE setting. One SAE is trained per model and seed."""

    name: Name = Field(description="name of the setting in tables, pages and commands")
    data_half: Literal["a", "b"] | None = Field(None, description="train on one of two disjoint halves of the images")
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0, 1, 2], min_length=1, description="one SAE per seed; stability compares seeds, and needs at least two"
    )
    retrain: Literal["always", "never"] | Annotated[float, Field(gt=1)] = Field(
        "always", description="train again on more rows: always, never, or once the rows have grown by this factor"
    )
    _times: float = PrivateAttr(1.0)  # what a learning rate that is chosen from the rows is multiplied by
    _twin_of: str | None = PrivateAttr(None)  # the setting whose frozen twin this one is
    _as_wide: int | None = PrivateAttr(None)  # the width for which the learning rate is chosen; None: its own

    @model_validator(mode="after")
    def _distinct(self) -> SAESetting:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds names a seed twice: {self.seeds}")
        return self

    def neighbour(self, times: float = 1.0, **changed: Any) -> SAESetting:
        """This setting with changed keys, one of which is `name`.

        A learning rate that is "auto" is that of this setting multiplied by `times`, whatever the width.
        """
        near = self.model_copy(update=changed)
        near._times, near._as_wide = times, self.width
        return near

    def twin(self, **changed: Any) -> SAESetting:
        """This setting with changed keys, which `twin_of` of the new setting names."""
        twin = self.model_copy(update=changed)
        twin._twin_of = self.name
        return twin

    @property
    def twin_of(self) -> str | None:
        """The name of the setting whose frozen twin this is; None for a setting that is no twin."""
        return self._twin_of

    def setting(self, rows: int) -> dict[str, Any]:
        """The keys that change the result of a training; part of the recipe (the hash that names a dataset).

        rows: training rows of both modalities, from which numbers that are "auto" are chosen. So the recipe states
        numbers. A data half has half of these rows, and draws as many in total as a training on all of them.
        """
        hashed = self.model_dump(exclude={"name", "seeds", "retrain"})
        share = 1.0 if self.data_half is None else 0.5
        width = self.width if self._as_wide is None else self._as_wide
        chosen = budget(rows, width, self.epochs, self.batch_size, self.learning_rate, share)
        hashed |= chosen._asdict()
        if self.learning_rate == "auto":
            hashed["learning_rate"] = float(f"{chosen.learning_rate * self._times:.3g}")
        if self.data_half is None:
            del hashed["data_half"]  # SAEs that were trained before this key existed keep their addresses
        return hashed


class Diets(Section):
    """Data diets: each SAE setting is also trained on other data, with the same number of rows drawn.

    Comparing these SAEs shows whether the concepts depend on the data or on the seed.
    """

    image_share: list[ImageShare] = Field(
        [], description="shares of images; each adds a setting NAME-share0.25 ..., or NAME-natural, unless it is NAME's"
    )
    halves: bool = Field(
        False, description="adds NAME-half-a and NAME-half-b, each on one half of the images, with twice the epochs"
    )

    def of(self, setting: SAESetting) -> list[SAESetting]:
        """The data diets of a setting. A half has half the rows, so its epochs are doubled to draw as many rows."""
        diets = []
        for share in dict.fromkeys(self.image_share):
            if share != setting.image_share:
                name = f"{setting.name}-natural" if share == "natural" else f"{setting.name}-share{share:g}"
                diets.append(setting.model_copy(update={"name": name, "image_share": share}))
        for half in ("a", "b") if self.halves else ():
            epochs = "auto" if setting.epochs == "auto" else 2 * setting.epochs
            update = {"name": f"{setting.name}-half-{half}", "data_half": half, "epochs": epochs}
            diets.append(setting.model_copy(update=update))
        return diets


class ImportedSAE(Section):
    """An SAE that was trained elsewhere: files of any library in `sae.interchange.FORMATS`."""

    name: Name = Field(description="name of the SAE in tables, pages and commands")
    checkpoint: str = Field(description="its folder or file, relative to the study file")
    architecture: ForeignName = Field(
        "batchtopk", description="for a state dict of overcomplete without thresholds; other files name their own"
    )
    k: int | None = Field(
        None, ge=1, description="concepts per row, when the file holds neither k nor a threshold; steps of pursuit"
    )
    encoder: Literal["own", "pursuit"] = Field(
        "own", description="how it encodes rows: as its files say, or by matching pursuit with its dictionary, k steps"
    )
    seeds: list[int] = Field([0], description="a checkpoint is one SAE: its seed is 0")
    retrain: Literal["always", "never"] | Annotated[float, Field(gt=1)] = Field(
        "always", description="has no effect: an imported SAE is never trained"
    )

    @field_validator("seeds")
    @classmethod
    def _one(cls, seeds: list[int]) -> list[int]:
        if seeds != [0]:
            raise ValueError("a checkpoint is one SAE, so its only seed is 0")
        return seeds


AnySetting = SAESetting | ImportedSAE | ConsensusSAE


def _sort_of_sae(setting: Any) -> str:
    """Tag of an entry of `saes`: "imported" when it has the key `checkpoint`, else "trained"."""
    keys = setting if isinstance(setting, dict) else getattr(type(setting), "model_fields", {})
    return "imported" if "checkpoint" in keys else "trained"


class Frontier(Section):
    """The frontier: methods whose R2 and L0 are measured in addition to the SAEs of the study."""

    methods: list[MethodName] = Field(min_length=1, description="architectures of SAEs, and baselines")
    k: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, description="codes per row; k-means always has one")
    width: int | None = Field(None, ge=2, description="directions; default: the first SAE setting's width")

    @model_validator(mode="after")
    def _consistent(self) -> Frontier:
        for name, values in (("methods", self.methods), ("k", self.k)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one thing twice: {values}")
        return self


class Analyze(Section):
    """Which pairs the statistics count, and which bridges are stored."""

    split: Literal["heldout", "train", "all"] = Field(
        "heldout", description="items that statistics count: held-out items, training items, or all"
    )
    min_pairs: int = Field(10, ge=1, description="bridges whose concepts fire together on fewer pairs are not stored")
    independent: Name | None = Field(
        None,
        description="a model of the study whose embeddings of the images also score the monosemanticity of the other "
        "models' concepts; it should share no part with them",
    )


class RuntimeSection(Section):
    """How a study is run. No key of this section is part of a recipe (the hash that names a dataset)."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="where models and SAEs run: auto (CUDA where there is any), cpu, cuda, or one GPU, such as cuda:1",
    )
    embed_batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        "auto", description="images per batch; auto starts with a size for the device; halved when memory runs out"
    )
    decoders: Literal["auto", "threads", "processes"] = Field(
        "auto",
        description="where images are decoded; auto: in processes for a GPU with more than 8 cores, else threads",
    )
    models_at_once: int | None = Field(
        None, ge=1, description="models that embed a shard in one pass, with one decoding; default: all of the study"
    )
    saes_at_once: int | None = Field(
        None,
        ge=1,
        description="seeds of a setting trained together on a GPU; default: as many as its memory has room for",
    )
    runner: Literal["threads", "ray"] = Field(
        "threads", description="where tasks run: on this machine, or in parallel on a Ray cluster (the extra `ray`)"
    )
    ray_address: str | None = Field(
        None,
        min_length=1,
        description="address of the cluster, HOST:PORT; default: RAY_ADDRESS, else a cluster on this machine",
    )
    num_cpus: int = Field(
        1, ge=1, le=2**16, description="cores that Ray reserves for a task, and threads that the task uses"
    )
    num_gpus: float | None = Field(
        None, ge=0, description="GPUs that Ray reserves for a task of embed or train; default: 1 if the cluster has any"
    )
    num_gpus_sae: float | None = Field(
        None, ge=0, description="GPUs for a task of train; default: num_gpus; a small SAE needs a part, such as 0.25"
    )

    @field_validator("num_gpus", "num_gpus_sae")
    @classmethod
    def _part_or_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError("must be a part of one GPU, or a whole number of them")
        return gpus

    @model_validator(mode="after")
    def _ray_chooses(self) -> RuntimeSection:
        if self.runner == "ray" and self.device.startswith("cuda:"):
            raise ValueError(f'device is {self.device}: Ray chooses the GPU; device must be "auto", "cpu" or "cuda"')
        return self


class Study(Section):
    """A study file with all its sections."""

    name: Name = Field(description="name of the study, by which commands find it once it has run")
    pairs: AnyPairs = Field(description="where images and captions, or their vectors, come from")
    models: list[Model] = Field(min_length=1, description="models whose embeddings are studied, one section each")
    saes: list[
        Annotated[
            Annotated[SAESetting, Tag("trained")] | Annotated[ImportedSAE, Tag("imported")], Discriminator(_sort_of_sae)
        ]
    ] = Field(min_length=1, description="SAEs that are trained or imported, one section per setting")
    diets: Diets = Field(Diets(), description="also train each setting on other data")
    sensitivity: list[Varied] = Field(
        [],
        description=f"keys out of {', '.join(FACTORS)}: each SAE setting is also trained with other values of these "
        "keys, one key at a time: every init, a third and three times the learning rate, half and twice k, half and "
        "twice the width",
    )
    nulls: list[NullName] = Field(
        [],
        description=f"parts out of {', '.join(FROZEN)}: each SAE setting is also trained with each part frozen, as "
        "NAME-KIND, so that its results can be compared with those of an SAE that did not learn the part",
    )
    null_starts: list[Start] = Field(
        ["data"],
        min_length=1,
        description="start of the atoms of `nulls`: data (like those of the setting) or random (as NAME-KIND-random)",
    )
    decode: Literal["pillow", "nvjpeg"] = Field(
        "pillow",
        description="what decodes JPEGs before they are embedded: pillow, or nvjpeg on a GPU, whose pixels differ "
        "slightly; part of the recipe",
    )
    consensus: bool = Field(
        False,
        description="each SAE setting of several seeds also gets one SAE of the atoms that most of its seeds share, "
        "NAME-consensus",
    )
    frontier: Frontier | None = Field(None, description="also measure R2 against L0 of other methods")
    analyze: Analyze = Field(Analyze(), description="which pairs the statistics count")
    runtime: RuntimeSection = Field(RuntimeSection(), description="how the study is run; changes no result")

    @field_validator("sensitivity", "nulls", "null_starts")
    @classmethod
    def _once(cls, keys: list[str]) -> list[str]:
        if len(set(keys)) != len(keys):
            raise ValueError(f"names a key twice: {keys}")
        return keys

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        models, settings = [model.name for model in self.models], [setting.name for setting in self.settings()]
        for kind, names in (("models", models), ("saes", settings)):
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} names one thing twice: {names}")
        if self.analyze.independent not in (None, *models):
            raise ValueError(
                f"analyze: independent is {self.analyze.independent}: the study has no such model. Available: "
                f"{', '.join(models)}."
            )
        if self.decode != "pillow" and self.pairs.source == "embeddings":
            raise ValueError(f'decode is {self.decode}: source = "embeddings" has no pictures; leave decode out')
        for model in self.models:
            if model.parsed_spec.is_vectors != (self.pairs.source == "embeddings"):
                raise ValueError(
                    f'model {model.name}: vectors of your own go with source = "embeddings", and only with it'
                )
            if model.parsed_spec.variant is not None and self.pairs.source != "npm-emoji":
                raise ValueError(f'model {model.name}: the demo models are made from source = "npm-emoji"')
        if self.frontier is not None:
            if not self._trained():
                raise ValueError("frontier: takes its settings from an SAE that is trained, and the study trains none")
            width = self.frontier.width or self._trained()[0].width
            if max(self.frontier.k) > width:
                raise ValueError(f"frontier: k is {max(self.frontier.k)}, more than the width {width}")
            if self.pairs.heldout == 0:
                raise ValueError("frontier: is measured on held-out rows, and pairs.heldout is 0")
        if self.consensus and not any(len(setting.seeds) > 1 for setting in self._trained()):
            raise ValueError("consensus: joins the seeds of an SAE, and no SAE of the study is trained with several")
        if self.pairs.heldout == 0 and self.analyze.split == "heldout":
            raise ValueError('analyze: split is "heldout", and pairs.heldout is 0: set analyze.split = "all"')
        return self

    def settings(self) -> list[AnySetting]:
        """All SAE settings of the study.

        Each that is trained is followed by its data diets, neighbours, twins and consensus SAE.
        """
        return [setting for family in self.families() for setting in family]

    def families(self) -> list[list[AnySetting]]:
        """The settings whose concepts are matched with each other: a setting with its data diets.

        A neighbour that `sensitivity` adds is a family of its own: its dictionary may have another width. So is a
        frozen twin that `nulls` adds: its training differs in more than the data. So is a consensus
        SAE, which has fewer concepts.
        """
        families: list[list[AnySetting]] = []
        for setting in self.saes:
            if isinstance(setting, SAESetting):
                families.append([setting, *self.diets.of(setting)])
                families += [[near] for near in neighbours(setting, self.sensitivity)]
                families += [[twin] for twin in twins_of(setting, self.nulls, self.null_starts)]
                if self.consensus:
                    of = setting.name, setting.seeds, setting.width, setting.k, setting.data_half
                    families += [[joined] for joined in consensus(*of)]
            else:
                families.append([setting])
        return families

    def _trained(self) -> list[SAESetting]:
        return [setting for setting in self.saes if isinstance(setting, SAESetting)]

    def shown(self) -> dict[str, Any]:
        """The study as the page shows it: each path is replaced by its last part.

        So the page stays the same when folders are moved.
        """
        config = self.model_dump(mode="json", exclude={"runtime": True, "pairs": set(HOW)})
        for setting in config["saes"]:
            if "checkpoint" in setting:
                setting["checkpoint"] = Path(setting["checkpoint"]).name
        config["pairs"] = located(config["pairs"], lambda path: Path(path).name)
        for model in config["models"]:
            model["spec"] = relocated(model["spec"], lambda path: Path(path).name)
        return config

    def frontier_setting(self, rows: int) -> dict[str, Any]:
        """Settings of the frontier's SAEs: those of the first trained setting, without architecture, k and encoder.

        rows: training rows of both modalities, as for `SAESetting.setting`.
        """
        first = self._trained()[0]
        if self.frontier is not None and self.frontier.width is not None:
            first = first.model_copy(update={"width": self.frontier.width})
        own = ("architecture", "k", "encoder", "frozen", *PARAMETERS)
        return {name: value for name, value in first.setting(rows).items() if name not in own}


def load_study(path: str | Path, changes: list[str] | None = None) -> Study:
    """Read a study file, apply changes of the form `key=value`, and validate the result.

    Relative paths are resolved against the folder of the study file. A value must have the type of its key: neither
    `true` nor "3" counts as a number. Raises BadInput, which names the file, the key and the values allowed.
    """
    file = Path(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{file}: no such study file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not TOML: {error}") from error
    for change in changes or []:
        apply(data, change)
    _make_absolute(data, file.resolve().parent)
    return validated(data, file)


def validated(data: dict[str, Any], file: str | Path) -> Study:
    """The study that the contents of a study file describe. Paths must be absolute.

    Raises BadInput with a sentence for each key that is wrong, which begins with `file`.
    """
    if unusable := list(_unusable(data)):
        raise BadInput("\n".join(f"{file}: {sentence}" for sentence in unusable))
    try:
        # Strict validation turns a list into a tuple when it reads JSON. It refuses a Python list in place of a tuple.
        return Study.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise BadInput("\n".join(_explained(file, data, error))) from error


def _unusable(value: Any, place: str = "") -> Iterator[str]:
    """A sentence for each value that TOML allows but no key does: infinity, NaN, a date, or an integer too large."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unusable(item, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unusable(item, f"{place}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value} is not allowed: a finite number is needed"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield f"{place}: the number is too large: a whole number has at most 63 bits"
    elif isinstance(value, (datetime.date, datetime.time)):
        yield f"{place}: is a date or a time, which no key takes: write a string in quotes"
    elif isinstance(value, str) and ("\0" in value or (not value.isascii() and _has_surrogates(value))):
        yield f"{place}: holds a character that no name, path or URL can hold: {value!r}"


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _explained(file: str | Path, data: dict[str, Any], error: ValidationError) -> list[str]:
    """A sentence for each key with an error: file, key, problem, values allowed."""
    problems: dict[str, list[str]] = {}
    for problem in error.errors():
        where = _place(data, problem) or "the study"
        if problem["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {', '.join(_keys_at(problem['loc'][:-1]))}"
        elif problem["type"] == "string_pattern_mismatch" and problem["loc"][-1] == "name":
            message = f"bad name {problem['input']!r}: lower-case letters, digits, '.', '_', '-', at most 64"
        elif problem["type"] == "union_tag_not_found":
            message = f"Field required: source = one of {', '.join(SECTIONS)}"
        elif problem["type"] == "list_type" and isinstance(problem["input"], dict) and where in ("models", "saes"):
            message = f"must be a list of sections: write [[{where}]]"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            if not isinstance(problem["input"], (dict, list, BaseModel)):
                message += f" (got {problem['input']!r})"
        if message not in problems.setdefault(where, []):
            problems[where].append(message)
    return [f"{file}: {where}: {', or: '.join(messages)}" for where, messages in problems.items()]


def _place(data: Any, problem: Any) -> str:
    """The key of an error. Pydantic's location also names members of unions, which are no keys; they are left out."""
    parts = []
    for part in problem["loc"]:
        if (isinstance(data, list) and isinstance(part, int) and part < len(data)) or (
            isinstance(data, dict) and part in data
        ):
            parts.append(str(part))
            data = data[part]
    if problem["type"] == "missing":
        parts.append(str(problem["loc"][-1]))
    return ".".join(parts)


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """Keys allowed in the section at a place of the study file."""
    sections: dict[str, type[BaseModel]] = {
        "": Study, "models": Model, "saes": SAESetting, "diets": Diets, "frontier": Frontier, "analyze": Analyze,
        "runtime": RuntimeSection,
    }  # fmt: skip
    named = [str(part) for part in place if isinstance(part, str)]
    if named[:1] == ["pairs"]:
        return sorted(SECTIONS[named[1]].model_fields)
    if "imported" in named:
        return sorted(ImportedSAE.model_fields)
    return sorted(sections[named[0] if named else ""].model_fields)


def _make_absolute(data: dict[str, Any], folder: Path) -> None:
    """Resolve each relative path against the folder of the study file, whatever the working directory is."""
    pairs = data.get("pairs")
    if isinstance(pairs, dict):
        data["pairs"] = located(pairs, lambda path: str(folder / path))
    for setting in data.get("saes", []) if isinstance(data.get("saes"), list) else []:
        if isinstance(setting, dict) and isinstance(setting.get("checkpoint"), str):
            setting["checkpoint"] = str(folder / setting["checkpoint"])
    for model in data.get("models", []) if isinstance(data.get("models"), list) else []:
        if isinstance(model, dict) and isinstance(model.get("spec"), str):
            model["spec"] = relocated(model["spec"], lambda path: str(folder / path))
