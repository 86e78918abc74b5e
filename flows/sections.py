"""The sections of a study file as pydantic models, with every key and its limits. `flows.config` joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from flows.consensus import ConsensusSAE
from flows.neighbours import FACTORS
from storage.sources.section import Section
from tasks.settings import ARCHITECTURES, BASELINES, ImageShare, Settings, budget
from tasks.specs import FORMS, Spec, forms

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
        chosen = budget(rows, width, self.epochs, self.batch_size, self.learning_rate, share, self.noise)
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
        "always",
        description="import and calibrate again on more rows: always, never, or once they have grown by this factor",
    )

    @field_validator("seeds")
    @classmethod
    def _one(cls, seeds: list[int]) -> list[int]:
        if seeds != [0]:
            raise ValueError("a checkpoint is one SAE, so its only seed is 0")
        return seeds


AnySetting = SAESetting | ImportedSAE | ConsensusSAE


def sort_of_sae(setting: Any) -> str:
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
