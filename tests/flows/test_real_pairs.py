"""A study on a few dozen real pairs, from the npm package to the page. One picture is truncated."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from flows.config import load_study
from flows.study import run_study
from storage import open_catalog
from storage.sources.npm_emoji import IMAGE_MEMBER, NpmEmoji

pytestmark = pytest.mark.usefixtures("prefect_server")
PICTURES, CUT = 48, "package/assets/1f40e.webp"  # the truncated picture is the horse
STUDY = """
name = "real"
[pairs]
source = "npm-emoji"
images = "few-emoji@1.0.0"
heldout = 0.25
shard_size = 32
[[models]]
name = "emoji-clip"
spec = "demo:emoji-clip"
[[saes]]
name = "main"
width = 16
k = 3
epochs = 3
batch_size = 32
seeds = [0, 1]
[analyze]
min_pairs = 1
"""


def few_emoji(downloads: Path) -> None:
    """Write a package of the first real pictures, and of the picture of the horse cut to half its bytes."""
    real = NpmEmoji(downloads)
    keys = [item.locator for item in real.list().items][: PICTURES - 1]
    path = downloads / "few-emoji-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in zip([*keys, CUT], real.read([*keys, CUT]), strict=True):
            assert isinstance(data, bytes)
            kept = data[: len(data) // 2] if name == CUT else data
            info = tarfile.TarInfo(name)
            info.size = len(kept)
            archive.addfile(info, io.BytesIO(kept))
    total = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    path.with_name(path.name + ".integrity").write_text(f"sha512-{total}\n")


@pytest.mark.slow
def test_a_study_of_real_pairs_counts_the_broken_picture_and_uses_all_others(tmp_path: Path) -> None:
    store = tmp_path / "store"
    few_emoji(store / "downloads")
    file = tmp_path / "real.toml"
    file.write_text(STUDY)
    finished = run_study(load_study(file), store, progress=False)
    assert [done.stage for done in finished.stages] == [
        "acquire", "model", "embed", "train", "export", "analyze", "report",
    ]  # fmt: skip
    with open_catalog(store) as con:

        def one(query: str) -> object:
            return con.execute(query).fetchone()[0]

        cut = IMAGE_MEMBER.fullmatch(CUT)[1]
        failures = con.execute("SELECT source_key, shard FROM ledger WHERE cause = 'corrupt image'").fetchall()
        assert failures == [(cut, 1)]
        assert one("SELECT count(*) FROM images") == PICTURES - 1
        assert one(f"SELECT count(*) FROM images WHERE source_key = '{cut}'") == 0
        fired = "SELECT count(*) FROM activations WHERE modality = '{}' AND item_id NOT IN (SELECT {} FROM {})"
        assert one(fired.format("image", "image_id", "images")) == 0
        assert one(fired.format("text", "pair_id", "pairs")) == 0
        assert one("SELECT count(*) FROM saes WHERE dim = 128 AND rows_seen > 0") == 2
        assert one("SELECT min(gallery) FROM retrieval") == one("SELECT count(*) FROM images WHERE split = 'heldout'")
    page = (store / "report" / "real" / "index.html").read_text()
    assert "corrupt image" in page
    assert "data:image/" in page
