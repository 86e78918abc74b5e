"""Support of the browser tests: an opened page that records its errors, checks by axe-core, and harmful data."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

expect.set_options(timeout=20_000)

ROOT = Path(__file__).parents[3]
WEB = ROOT / "explorer" / "web"
DIST = WEB / "dist"
AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
ARTIFACTS = Path(os.environ.get("SHOTS", ROOT / "build" / "explorer"))
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
PATIENCE = 60_000  # milliseconds that a test waits for the page
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
TABLET = {"width": 768, "height": 1024}
TWICE = {"width": 720, "height": 450}  # size of the desktop window at a zoom of 200 %
MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\"'&amp;"
RIGHT_TO_LEFT = "\u202eקוֹל \u0627\u0644\u0633\u0644\u0627\u0645\u202e at the end"
LONG = "long " * 2000  # 10,000 characters
BREAKLESS = "x" * 10_000
HARM = (MARKUP, RIGHT_TO_LEFT, LONG, BREAKLESS)


class Opened:
    """A page that records its errors and its requests to other hosts."""

    def __init__(self, browser: Browser, address: str, **context: Any) -> None:
        self.address = address
        self.context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce"} | context)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", self._record)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)

    def _record(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.elsewhere.append(request.url)

    def visit(self, fragment: str) -> None:
        """Go to a fragment of the page, and wait until its view is complete."""
        self.page.goto(self.address + fragment)
        self.settled()

    def settled(self) -> None:
        """Wait until no element is loading and no request is pending."""
        expect(self.page.locator(".loading")).to_have_count(0)
        self.page.wait_for_load_state("networkidle")

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true.

        Playwright's own wait uses eval in the page, which the content security policy forbids.
        """
        ends = time.monotonic() + PATIENCE / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < ends, f"it never came to {expression}"
            self.page.wait_for_timeout(30)

    def drawn(self) -> None:
        """Wait for the map's first frame with edges."""
        for mark in ("explorer:map", "explorer:edges"):
            self.until(f"performance.getEntriesByName('{mark}').length > 0")

    def heading(self, text: str | None = None) -> None:
        """Wait for the view's heading to be `text`."""
        heading = self.page.locator("#page-heading")
        if text is None:
            expect(heading).to_be_attached()
        else:
            expect(heading).to_contain_text(text)

    def fits(self) -> None:
        """Check that no content is wider than the window."""
        assert self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

    def serious(self) -> list[str]:
        """Findings of axe-core rated serious or critical, one line per finding."""
        self.page.evaluate(AXE.read_text())
        report = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {rule['help']}: {node['target']} {node['failureSummary']}"
            for rule in report["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]

    def close(self) -> None:
        """Close the page and its context."""
        self.context.close()


def shots(opened: Opened, name: str) -> None:
    """Save a screenshot."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    opened.page.screenshot(path=ARTIFACTS / f"{name}.png")


def hostile(site: Path) -> None:
    """Put harmful text into the names of the first concepts of seed 0 and the captions of the first images."""
    run = site / "data" / "runs" / "planted" / "main" / "0"
    concepts = json.loads((run / "concepts.json").read_text())
    search = json.loads((site / "data" / "items" / "search.json").read_text())
    items = json.loads((site / "data" / "items" / "0.json").read_text())
    details = json.loads((run / "concept" / "0.json").read_text())
    for at, text in enumerate(HARM):
        concepts["name"][at] = text
        items["texts"][str(at)]["caption"] = search["caption"][at] = text
        items["images"]["0"]["captions"] = [0, 1, 2, 3]
        details[str(at)]["texts"] = [{"item": item, "activation": 1 - item / 10} for item in range(len(HARM))]
        details[str(at)]["images"] = [{"item": item, "activation": 1 - item / 10} for item in range(8)]
        details[str(at)]["words"] = [{"word": text, "score": 1.0}]
    for path, value in (
        (run / "concepts.json", concepts),
        (run / "concept" / "0.json", details),
        (site / "data" / "items" / "0.json", items),
        (site / "data" / "items" / "search.json", search),
    ):
        path.write_text(json.dumps(value))


def withhold(site: Path) -> None:
    """Remove images and captions from a site, as `publish --no-items` does."""
    from report.explorer.release import released

    for path in [path for path in site.rglob("*") if path.is_file()]:
        name = path.relative_to(site).as_posix()
        if not name.startswith(("data/", "thumbs/", "figures/")):
            continue
        data = released(name, path.read_bytes(), items=False)
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
