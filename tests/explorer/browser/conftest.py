"""The explorer in a real browser: Debian's Chromium, headless, over a published site and over the live server.

`make test-pages` runs these tests. They need the built front end (npm) and Chromium (or the browser that CHROMIUM
names). Tests of the live server need a store with the finished demo (STORE). No page of a test may log a console error
or send a request to another host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_support import ARGUMENTS, CHROMIUM, DIST, Opened, hostile, shots, withhold
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "bench"))
from plant_explorer import Scale, plant  # noqa: E402

SMALL = Scale(concepts=160, bridges=400, images=96, seeds=2)
Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of planted data in the layout of `bridgescope publish`, with harmful captions and names."""
    assert (DIST / "index.html").is_file(), "the front end is not built: make front-end"
    site = tmp_path_factory.mktemp("site") / "below" / "a folder"
    shutil.copytree(DIST, site)
    plant(site, SMALL)
    hostile(site)
    return site


def serving(command: list[str], address: re.Pattern[str], **how: Any) -> Iterator[str]:
    """Run a server until the tests end, and yield its address.

    The pattern `address` finds the address in the first line that the server prints.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = address.search(line)
        assert match, f"no address in {line!r}"
        yield match[0].rstrip("/") + "/"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def published(folder: Path) -> Iterator[str]:
    """Address of the planted site behind `python -m http.server`, in a folder below the root."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    root = folder.parents[1]
    for address in serving(command, re.compile(r"http://[\d.:]+/"), cwd=root, stderr=subprocess.DEVNULL):
        yield f"{address}{folder.relative_to(root).as_posix().replace(' ', '%20')}/"


@pytest.fixture(scope="session")
def without_items(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the same site published without captions and images."""
    site = tmp_path_factory.mktemp("withheld")
    shutil.copytree(folder, site, dirs_exist_ok=True)
    withhold(site)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    yield from serving(command, re.compile(r"http://[\d.:]+/"), cwd=site, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def demo_store() -> Path:
    """The store that `make demo` filled."""
    store = Path(os.environ.get("STORE", ROOT / "store")).resolve()
    assert (store / "studies" / "demo").is_dir(), f"{store} holds no demo study: make demo, or STORE=..."
    return store


@pytest.fixture(scope="session")
def demo_site(demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `bridgescope publish` writes for the demo."""
    site = tmp_path_factory.mktemp("demo") / "site"
    publish = [sys.executable, "-m", "flows.cli", "publish", "studies/demo.toml", "--store", str(demo_store)]
    subprocess.run([*publish, "--to", str(site)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return site


@pytest.fixture(scope="session")
def published_demo(demo_site: Path) -> Iterator[str]:
    """Address of the published demo."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    yield from serving(command, re.compile(r"http://[\d.:]+/"), cwd=demo_site, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def live(demo_store: Path) -> Iterator[str]:
    """Address of `bridgescope explore` over the demo's store."""
    command = [sys.executable, "-m", "flows.cli", "explore", "studies/demo.toml", "--store", str(demo_store)]
    yield from serving([*command, "--no-browser", "--port", "0"], re.compile(r"http://[\d.:]+/"), cwd=ROOT)


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Open]:
    """Open pages. At the end check that no page had an error or sent a request to another host."""
    opened: list[Opened] = []

    def open_one(address: str, fragment: str = "", **context: Any) -> Opened:
        page = Opened(chromium, address, **context)
        opened.append(page)
        page.visit(fragment)
        return page

    yield open_one
    for page in opened:
        page.close()
    for page in opened:
        assert page.errors == []
        assert page.elsewhere == []


@pytest.fixture
def shot() -> Callable[[Opened, str], None]:
    """Return a function that saves a screenshot with the artifacts of the test run."""
    return shots
