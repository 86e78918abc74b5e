"""One thread for all tests here, since equal bits need one thread; and a planted study."""

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
    """The script that plants activations."""
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
    """A copy of the planted study in a store per test."""
    return shutil.copytree(planted, tmp_path / "store")
