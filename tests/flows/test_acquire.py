"""The stage acquire as a flow, on a list of URLs that grows, fails and recovers, and the rows in the catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_support import Web, picture, serving

from flows.config import load_study
from flows.study import run_study
from storage import open_catalog
from storage.failures import TooFewPairs
from storage.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
STUDY = """
name = "web"
[pairs]
source = "urls"
path = "list.jsonl"
shard_size = 4
allow_private_addresses = true
tries = 1
retry_after = 0
[[models]]
name = "any"
spec = "open_clip:ViT-B-32/openai"
[[saes]]
name = "main"
width = 8
k = 2
"""


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as site:
        yield site


def acquire(folder: Path, *changes: str) -> Run:
    return run_study(
        load_study(folder / "web.toml", list(changes)), folder / "store", only="acquire", progress=False
    ).run


def test_a_list_that_grows_fails_and_recovers(web: Web, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "web.toml").write_text(STUDY)
    urls = [web.serve(f"/{n}.jpg", picture((n, 9, 9))) for n in range(8)]
    hostile = "'); DROP TABLE images; <script>alert(1)</script> ../../x"

    def write(count: int) -> None:
        rows = [{"url": url, "caption": hostile} for url in urls[:count]]
        (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    web.refuse("/1.jpg", 503)
    web.refuse("/2.jpg", 404)
    write(4)
    first = acquire(tmp_path)
    assert [entry.cached for entry in first.of("acquire")] == [False]
    with open_catalog(tmp_path / "store") as con:
        causes = con.execute("SELECT cause, count(*) FROM ledger GROUP BY cause ORDER BY cause").fetchall()
        assert causes == [("HTTP 404", 1), ("HTTP 503", 1)]
        assert con.execute("SELECT count(*), min(caption) FROM pairs").fetchone() == (2, hostile)

    write(8)
    web.serve("/1.jpg", picture((1, 9, 9)))
    grown = acquire(tmp_path)
    assert [(entry.shard, entry.cached) for entry in grown.of("acquire")] == [(0, True), (1, False), (2, False)]
    assert [entry.shard for entry in grown.of("scan")] == [0, 1, 2]
    with open_catalog(tmp_path / "store") as con:
        assert con.execute("SELECT count(*), count(DISTINCT image_id // 1048576) FROM images").fetchone() == (7, 3)
        assert con.execute("SELECT cause FROM ledger").fetchall() == [("HTTP 404",)]

    again = acquire(tmp_path, "pairs.concurrency=2", "pairs.timeout=9")
    assert [entry.cached for entry in again.of("acquire")] == [True] * 3
    assert again.of("ledger")[0].dataset == grown.of("ledger")[0].dataset
    with pytest.raises(TooFewPairs, match=r"7 of 8 images .* Most likely the images are gone"):
        acquire(tmp_path, "pairs.min_success=0.9")
