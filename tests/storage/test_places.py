"""Names that no file system allows: whatever key of a study file states one, the error names the key or the path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from storage.errors import BadInput
from storage.places import exists, is_file, is_folder
from storage.sources.registry import open_source

TOO_LONG = {"name": "x" * 300, "path": "/".join(["y" * 200] * 25)}


@pytest.mark.parametrize("long", TOO_LONG.values(), ids=TOO_LONG)
def test_nothing_is_at_a_path_that_is_too_long(tmp_path: Path, long: str) -> None:
    with pytest.raises(OSError, match="too long"):
        os.stat(tmp_path / long)
    assert not any(look(tmp_path / long) for look in (is_file, is_folder, exists))
    (tmp_path / "a").touch()
    assert [look(tmp_path / "a") for look in (is_file, is_folder, exists)] == [True, False, True]
    assert [look(tmp_path) for look in (is_file, is_folder, exists)] == [False, True, True]


@pytest.mark.parametrize("long", TOO_LONG.values(), ids=TOO_LONG)
@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"source": "folder", "path": "HERE/LONG"}, "no such folder"),
        ({"source": "folder", "path": "HERE", "images": "LONG"}, "no such folder"),
        ({"source": "folder", "path": "HERE", "table": "LONG.csv"}, "cannot be read"),
        ({"source": "huggingface", "repo": "HERE/LONG"}, "no such folder"),
        ({"source": "webdataset", "shards": ["HERE/LONG"]}, "pairs.shards"),
        ({"source": "webdataset", "shards": ["HERE/LONG*.tar"]}, "pairs.shards"),
        ({"source": "coco", "path": "HERE/LONG"}, "none of these is there"),
        ({"source": "coco", "path": "HERE", "annotations": "HERE/LONG"}, "none of these is there"),
        ({"source": "urls", "path": "HERE/LONG.csv"}, "cannot be read"),
        ({"source": "embeddings", "path": "HERE/LONG"}, "no such folder"),
    ],
)
def test_a_path_that_is_too_long_is_bad_input(tmp_path: Path, section: dict[str, Any], says: str, long: str) -> None:
    (tmp_path / "t.csv").write_text("file_name,caption\na.png,x\n")

    def written(value: Any) -> Any:
        if isinstance(value, list):
            return [written(one) for one in value]
        return value.replace("HERE", f"{tmp_path}").replace("LONG", long)

    source = open_source({key: written(value) for key, value in section.items()}, tmp_path / "store")
    with pytest.raises(BadInput, match=says):
        source.list()
