"""Find the built front end. `make explorer` builds it; the built front end is not part of a checkout."""

from __future__ import annotations

from pathlib import Path

from storage.errors import BadInput

DIST = Path(__file__).parent / "web" / "dist"


def built_site(folder: Path = DIST) -> Path:
    """The folder of the built front end. Raises BadInput when there is no build."""
    if not (folder / "index.html").is_file():
        raise BadInput("the explorer's front end was not built yet: make front-end (it needs npm)")
    return folder
