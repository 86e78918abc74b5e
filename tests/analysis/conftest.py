"""Fixtures with a planted study. The tests of this folder use one thread, so that results are equal bit by bit."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def planter() -> ModuleType:
    """The module of the script that writes a planted study, that is, a study with known activations."""
    source = Path(__file__).parents[2] / "bench" / "plant_activations.py"
    spec = importlib.util.spec_from_file_location("plant_activations", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def study(planter: ModuleType) -> str:
    """The name of the planted study."""
    return str(planter.STUDY)


@pytest.fixture(scope="session")
def planted(planter: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("planted")
    planter.write(planter.plant(300, 900, 5, 32), store, 32, dim=16, seeds=2, embedded=True)
    return store


@pytest.fixture
def store(planted: Path, tmp_path: Path) -> Path:
    """A store with a copy of the planted study. Each test has its own store."""
    return shutil.copytree(planted, tmp_path / "store")
