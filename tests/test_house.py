"""The rooms (top-level packages) have no import circles. Each is type-checked, packaged and in the Docker image."""

import re
import shlex
import tomllib
from pathlib import Path

import grimp
import networkx

HOUSE = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text())
ROOMS = PROJECT["tool"]["importlinter"]["root_packages"]


def test_there_is_no_import_circle() -> None:
    """Imports inside functions and imports for type checking count too."""
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    imports = networkx.DiGraph(
        (module, imported) for module in graph.modules for imported in graph.find_modules_directly_imported_by(module)
    )
    assert {"vlm.loading", "flows.cli", "explorer.live"} <= set(imports)
    circles = [sorted(circle) for circle in networkx.strongly_connected_components(imports) if len(circle) > 1]
    assert circles == []


def test_every_room_is_checked_packaged_and_copied() -> None:
    assert set(PROJECT["tool"]["mypy"]["files"]) == set(ROOMS)
    assert {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]} == set(ROOMS)
    copied = re.findall(r"^COPY (\w+) \1$", (HOUSE / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert set(copied) - {"studies", "deploy"} == set(ROOMS)
    assert all((HOUSE / room / "py.typed").is_file() for room in ROOMS)


def test_every_file_that_code_reads_is_packaged() -> None:
    """An installed wheel holds only the data files that these patterns name."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    files = [path for room in ROOMS for path in (HOUSE / room).rglob("*") if path.is_file()]
    data = {
        path.relative_to(HOUSE)
        for path in files
        if path.suffix != ".py" and not {"web", "__pycache__"} & set(path.relative_to(HOUSE).parts)
    }
    assert {"template.html.j2", "functions.txt"} <= {path.name for path in data}
    assert [path for path in sorted(data) if not any(path.match(pattern) for pattern in patterns)] == []


def test_no_folder_of_tests_is_left_out() -> None:
    """In one call pytest leaves out a folder within another one, if the configuration leaves it out by its name."""
    commands = [line for line in (HOUSE / "Makefile").read_text().splitlines() if " -m pytest" in line]
    given = [[arg for arg in shlex.split(line.partition(" -m pytest")[2]) if "/" in arg] for line in commands]
    for paths in given:
        assert not [one for one in paths for other in paths if one != other and one.startswith(f"{other}/")]
    left_out = set(PROJECT["tool"]["pytest"]["ini_options"]["norecursedirs"])
    folders = {file.parent for file in HOUSE.glob("tests/**/test_*.py") if file.parent.name in left_out}
    named = {HOUSE / path for paths in given for path in paths}
    assert len(folders) >= 3
    assert folders <= named
