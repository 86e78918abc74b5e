"""The study file: the pydantic model of the whole, and the function `load_study`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from flows.changes import apply
from flows.complaints import explained, unusable
from flows.consensus import consensus
from flows.neighbours import FACTORS, neighbours
from flows.nulls import NullName, Start, twins_of
from flows.sections import (
    Analyze,
    AnySetting,
    Diets,
    Frontier,
    ImportedSAE,
    Model,
    Name,
    RuntimeSection,
    SAESetting,
    Varied,
    sort_of_sae,
)
from storage.errors import BadInput
from storage.sources.registry import AnyPairs, located
from storage.sources.section import HOW, Section
from tasks.settings import FROZEN, PARAMETERS
from tasks.specs import relocated


class Study(Section):
    """A study file with all its sections."""

    name: Name = Field(description="name of the study, by which commands find it once it has run")
    pairs: AnyPairs = Field(description="where images and captions, or their vectors, come from")
    models: list[Model] = Field(min_length=1, description="models whose embeddings are studied, one section each")
    saes: list[
        Annotated[
            Annotated[SAESetting, Tag("trained")] | Annotated[ImportedSAE, Tag("imported")], Discriminator(sort_of_sae)
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
    if sentences := list(unusable(data)):
        raise BadInput("\n".join(f"{file}: {sentence}" for sentence in sentences))
    try:
        # Strict validation turns a list into a tuple when it reads JSON. It refuses a Python list in place of a tuple.
        return Study.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise BadInput("\n".join(explained(file, data, error, Study))) from error


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
