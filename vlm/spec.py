"""Model specs, the strings that name a model. Only this file takes them apart and puts them together.

This module imports no model library, because every check of a study file imports this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vlm.zoo import VARIANTS, ZOO

LOCAL_DIR = "local-dir:"
HF_HUB = "hf-hub:"
#: The forms of a spec by its kind; a short name of `vlm.zoo.ZOO` is allowed too.
FORMS = {
    "demo": ("demo:NAME",),
    "open_clip": (
        "open_clip:NAME/PRETRAINED", f"open_clip:{HF_HUB}REPOSITORY[@REVISION]", f"open_clip:{LOCAL_DIR}PATH",
    ),
    "hf": ("hf:REPOSITORY[@REVISION]", f"hf:{LOCAL_DIR}PATH"),
    "embeddings": ("embeddings:PATH",),
}  # fmt: skip
#: The rest of an `hf:` spec is a path if it starts with one of these, whether or not the path exists.
PATH_STARTS = ("/", "./", "../", "~")


class SpecError(ValueError):
    """A model spec, device or dtype that cannot be used. The message names the value and the allowed values."""

    exit_code = 2


class Spec(NamedTuple):
    """A model spec, `KIND:REST`."""

    kind: str  #: a key of `FORMS`, if `check` passes
    rest: str

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Take a spec apart; a short name gives the spec that it stands for. Accepts any text; `check` does not."""
        kind, _, rest = (ZOO[text].spec if text in ZOO else text).partition(":")
        return cls(kind, rest)

    @classmethod
    def of_folder(cls, kind: str, folder: str | Path) -> Spec:
        """The spec of a checkpoint folder that open_clip ("open_clip") or transformers ("hf") can load."""
        return cls(kind, f"{LOCAL_DIR}{folder}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.rest}"

    def check(self) -> None:
        """Raise `SpecError`, with the allowed forms, when no model can have this spec. Touches neither disk nor hub."""
        if self.kind not in FORMS or not self.rest:
            *others, last = forms(*FORMS)
            raise SpecError(f"must be {', '.join(others)} or {last}")
        if self.kind == "demo" and self.rest not in VARIANTS:
            raise SpecError(f"demo models are {' and '.join(f'demo:{name}' for name in VARIANTS)}")
        if self.on_hub:
            self.repository()

    @property
    def variant(self) -> str | None:
        """The variant of the demo model, a key of `vlm.zoo.VARIANTS`; None for every other model."""
        return self.rest if self.kind == "demo" else None

    @property
    def is_vectors(self) -> bool:
        """Whether the model is a folder of the user's own vectors, without an encoder."""
        return self.kind == "embeddings"

    @property
    def path(self) -> str | None:
        """The path on this machine that the spec names, as written; None when the spec names no path."""
        if self.is_vectors:
            return self.rest
        if self.kind in ("open_clip", "hf") and self.rest.startswith(LOCAL_DIR):
            return self.rest.removeprefix(LOCAL_DIR)
        return self.rest if self.kind == "hf" and self.rest.startswith(PATH_STARTS) else None

    def with_path(self, path: str) -> Spec:
        """The same spec with another path; `hf:PATH` becomes `hf:local-dir:PATH`."""
        return self._replace(rest=path) if self.is_vectors else Spec.of_folder(self.kind, path)

    @property
    def on_hub(self) -> bool:
        """Whether the spec names a repository of the hub, at some revision."""
        return (self.kind == "hf" and self.path is None) or (self.kind == "open_clip" and self.rest.startswith(HF_HUB))

    def repository(self) -> tuple[str, str | None]:
        """The tuple (repository, revision or None) of a spec with `on_hub`. Raises `SpecError` for a bad name.

        It refuses `hf:timm/NAME` too: these repositories are for open_clip, or for timm, which has no text towers.
        """
        rest = self.rest.removeprefix(HF_HUB) if self.kind == "open_clip" else self.rest
        repository, _, revision = rest.partition("@")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
            raise SpecError(f"model spec {self}: must be {' or '.join(FORMS[self.kind])}")
        if self.kind == "hf" and repository.startswith("timm/"):
            raise SpecError(
                f"model spec {self}: transformers does not read timm's repositories. Those with a text tower are for "
                f"open_clip: write {self.as_kind('open_clip')}"
            )
        return repository, revision or None

    def with_revision(self, commit: str) -> Spec:
        """The same repository at a commit."""
        return self._replace(rest=f"{self.rest.partition('@')[0]}@{commit}")

    def as_kind(self, kind: str) -> Spec:
        """The same repository of the hub, or the same folder, for another library: "hf" or "open_clip"."""
        if self.path is not None:
            return Spec.of_folder(kind, self.path)
        return Spec(kind, (HF_HUB if kind == "open_clip" else "") + self.rest.removeprefix(HF_HUB))

    def pretrained(self) -> tuple[str, str]:
        """The tuple (name, tag) of open_clip:NAME/PRETRAINED; the tag is empty when the spec has none."""
        name, _, tag = self.rest.partition("/")
        return name, tag


def forms(*kinds: str) -> tuple[str, ...]:
    """The allowed forms of specs of the given kinds, followed by the short names."""
    return (*(form for kind in kinds for form in FORMS[kind]), *ZOO)


def relocated(text: str, change: Callable[[str], str]) -> str:
    """A spec of a study file with its path changed. A spec without a path, or an invalid spec, stays as it is.

    `hf:/PATH` and `hf:~/PATH` mean the same from every folder and stay as they are too.
    """
    spec = Spec.parse(text)
    if spec.path is None or (spec.kind == "hf" and spec.rest.startswith(("/", "~"))):
        return text
    return str(spec.with_path(change(spec.path)))
