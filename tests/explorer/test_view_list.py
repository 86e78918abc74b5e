"""The front end states its views once, in `src/views.ts`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "explorer" / "web" / "src"
LIST = SOURCE / "views.ts"


def titles() -> list[str]:
    """Titles of the views in `src/views.ts`, in the order of that list."""
    return re.findall(r'title: "([^"]+)"', LIST.read_text())


def test_the_list_loads_every_view_and_no_other_file_loads_one() -> None:
    loader = re.compile(r'import\("(?:\.\.?/)+(views/\w+|map/view|items/view)"\)')
    files = {f"views/{path.stem}" for path in (SOURCE / "views").glob("*.ts")} | {"map/view", "items/view"}
    loaded = loader.findall(LIST.read_text())
    assert sorted(loaded) == sorted(files)
    others = [path for path in SOURCE.rglob("*.ts") if path != LIST]
    assert [path.name for path in others if loader.search(path.read_text())] == []


def test_no_other_file_pairs_the_names_of_views_with_titles() -> None:
    names = re.findall(r"^  (\w+): \{$", LIST.read_text(), re.MULTILINE)
    assert len(names) == len(titles()) >= 8
    pair = re.compile("|".join(f'"?{name}"?[:,] "{title}"' for name, title in zip(names, titles(), strict=True)))
    others = [path for path in SOURCE.rglob("*.ts") if path != LIST]
    assert [path.name for path in others if pair.search(path.read_text())] == []


def test_the_documentation_has_one_row_per_view() -> None:
    table = (ROOT / "docs" / "explorer.md").read_text().split("## What it shows")[1].split("##")[0]
    rows = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)
    assert sorted(rows[1:]) == sorted(titles())  # the first row is the header
