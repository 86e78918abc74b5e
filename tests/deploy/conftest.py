"""One server, one worker and one set of deployments for all tests of this folder.

They are started as by `make server worker deploy`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_support import Operator
from tests_support import write_study


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(tmp_path_factory.mktemp("operator"))
    try:
        for what in ("server", "worker", "deploy"):
            operator.make(what)
        yield operator
    finally:
        for what in ("worker", "server"):
            with contextlib.suppress(FileNotFoundError):
                operator.kill(what)
        shutil.rmtree(operator.home, ignore_errors=True)


@pytest.fixture
def study_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A small study named after the test, since all tests share one store."""
    study = write_study(tmp_path, images=400)
    name = request.node.name.replace("_", "-")[:60]
    study.write_text(
        study.read_text().replace('name = "small"', f'name = "{name}"').replace("epochs = 4", "epochs = 1")
    )
    return study.rename(study.with_name(f"{name}.toml"))
