"""A manifest records the commit, the libraries and the machine that made a dataset. A recipe records none of these."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from storage import provenance
from storage.dataset import address, manifest_of, materialize
from storage.provenance import LIBRARIES, machine

ROOT = Path(__file__).parents[2]
ROOMS = ("flows", "explorer", "tasks", "analysis", "report", "vlm", "sae", "storage")
#: Libraries that change no result: they schedule, serve, download, draw or check.
NO_RESULT = {
    "prefect", "ray", "starlette", "uvicorn", "httpx", "aiohttp", "sqlalchemy", "huggingface-hub", "tqdm", "pydantic",
    "pydantic-core", "matplotlib", "jinja2", "markupsafe", "threadpoolctl", "websockets", "prefect-ray", "anyio",
    "yarl", "mcp",
}  # fmt: skip
ASK = """
import json, sys
from storage.provenance import ROOT, code
print(json.dumps([str(ROOT), code(), code() is code()]))
"""


def imported() -> set[str]:
    """Names of the libraries that the rooms (the project's packages) import, also inside functions."""
    names: set[str] = set()
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "node_modules" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(ROOMS) - set(sys.stdlib_module_names)


def test_every_library_that_the_rooms_import_is_recorded_or_changes_no_result() -> None:
    distributions = importlib.metadata.packages_distributions()
    used = {distributions[name][0].lower().replace("_", "-") for name in imported() if name in distributions}
    recorded = {name.lower().replace("_", "-") for name in LIBRARIES}
    assert {"torch", "pillow", "numba", "lapx", "umap-learn"} <= used
    assert used - recorded - NO_RESULT == set()


def test_a_manifest_says_what_made_the_dataset_and_a_recipe_does_not(tmp_path: Path) -> None:
    at = address("things", "1", {})
    dataset = materialize(tmp_path, at, lambda out: (out / "x").write_bytes(b"x"), machine=machine("cpu", threads=1))
    manifest = manifest_of(tmp_path, dataset)
    assert manifest["machine"] == {"device": "cpu", "cpu": provenance.cpu(), "threads": 1}
    assert manifest["code"] == provenance.code()
    assert {"pillow", "torchvision", "tokenizers", "numba", "pyarrow", "python"} <= manifest["libraries"].keys()
    assert at.recipe == address("things", "1", {}).recipe == "".join(dataset.path.partition("/")[2:])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout of one commit that holds only the package `storage`."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "storage", copy / "storage", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / ".gitignore").write_text("__pycache__\n")
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "Begin")
    return copy


def git(folder: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], cwd=folder, env=clean, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def asked(checkout: Path, **environment: str) -> dict[str, object]:
    """What `provenance.code` returns in a process that runs the code of a checkout."""
    import json

    settings = {**os.environ, "PYTHONPATH": str(checkout), **environment}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=checkout, env=settings, capture_output=True, text=True, check=True
    )
    root, made, once = json.loads(done.stdout)
    assert root == str(checkout)
    assert once
    return dict(made)


def test_the_code_is_known_by_commit_and_a_changed_or_new_file_makes_it_dirty(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    elsewhere = {"GIT_DIR": str(ROOT / ".git")}  # git sets GIT_DIR like this in a hook of another repository
    known = asked(checkout, **elsewhere)
    assert (known["commit"], known["dirty"]) == (commit, False)
    (checkout / "notes.md").write_text("not code")
    assert asked(checkout)["dirty"] is False
    (checkout / "storage" / "added.py").write_text("")
    assert asked(checkout)["dirty"] is True
    (checkout / "storage" / "added.py").unlink()
    with open(checkout / "storage" / "lease.py", "a") as file:
        file.write("# changed\n")
    assert asked(checkout)["dirty"] is True


def test_without_git_or_a_checkout_the_version_alone_is_known(checkout: Path, tmp_path: Path) -> None:
    assert asked(checkout, PATH=str(tmp_path / "empty"))["commit"] is None
    shutil.rmtree(checkout / ".git")
    git(tmp_path, "init", "-q")  # a repository around the checkout is not the code's repository
    made = asked(checkout)
    assert (made["commit"], made["dirty"]) == (None, None)
    assert made["version"]
