"""The built site: whether it builds strictly, its links and anchors lead somewhere, and it asks no other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Attributes whose URL a browser fetches without a click.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
#: Relations of <link> that only state an address.
STATED = {"canonical", "next", "prev", "edit"}


class Page(HTMLParser):
    """The anchors of a page, its links, and what a browser fetches for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in FETCHED and FETCHED[tag] in given and given.get("rel") not in STATED:
            self.fetched.append(given[FETCHED[tag]])


def problems() -> Iterator[str]:
    """Build the site into a temporary folder; yield one line per problem."""
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            yield f"the site does not build: {(done.stderr or done.stdout).strip()}"
            return
        yield from wrong_links(site)


def wrong_links(site: Path) -> Iterator[str]:
    """Problems with the links of a built site, and with what its pages and styles fetch."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in page.links + page.fetched:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.fetched and parts.scheme != "data":
                    yield f"{name}: fetches {link} from another host"
                continue
            target = path if not parts.path else (path.parent / urllib.parse.unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if name.name != "404.html" and not target.exists():  # its links are absolute, for a site on a host
                yield f"{name}: links to {link}, which does not exist"
            elif parts.fragment and target in pages and parts.fragment not in pages[target].anchors | {"__skip"}:
                yield f"{name}: links to {link}, which has no such anchor"
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"url\(['\"]?((?:https?:)?//[^)'\"]+)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: fetches {address} from another host"
