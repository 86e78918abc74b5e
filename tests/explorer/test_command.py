"""`bridgescope explore` as a process: its address, its answers and its exit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
import explorer.front
explorer.front.built_site.__defaults__ = (Path(sys.argv[1]),)
from flows.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_it_prints_its_address_answers_and_ends_with_an_interrupt(pictured: tuple[Path, Path], front: Path) -> None:
    study, store = pictured
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    command = ["explore", str(study), "--store", str(store), "--port", "0", "--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(front), *command], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address, line
        manifest = json.loads(urllib.request.urlopen(f"{address[0]}data/manifest.json").read())
        assert manifest["live"] is True
        own = {"origin": address[0].rstrip("/"), "content-type": "application/json"}
        body = json.dumps({"query": "SELECT count(*) FROM saes"}).encode()
        request = urllib.request.Request(f"{address[0]}api/sql", body, own)
        assert json.loads(urllib.request.urlopen(request).read())["rows"] == [[2]]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(address[0], headers={"host": "evil.example"}))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before  # nothing was written
