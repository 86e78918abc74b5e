"""Times in which the explorer paints, moves and answers, in headless Chromium with software rendering, and their bars.

python bench/explorer.py --store DIR [--study demo] [--only PART]

Needs the built front end (`make explorer`) and a store with the finished demo. Run it while nothing else is running.
Prints one line per result, writes bench/results/explorer.json, and ends with 1 when a bar is not met.
"""

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bars import Bar, at_most, finish, shown
from plant_explorer import Scale, plant
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
DIST = ROOT / "explorer" / "web" / "dist"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]  # fmt: skip
WINDOW = {"width": 1440, "height": 900}
PAINT, PLANTED_PAINT, FRAME, HOVER, CONCEPT, PAIR = 2.0, 4.0, 250, 100, 300, 300  # bars: seconds, seconds, then ms
SITE = 30.0  # MB
ITEMS, SMOOTH, TAB = {100_000: 4.0, 1_000_000: 15.0}, 100_000, 2000.0  # seconds to paint; items; MB
SCRIPT_SECONDS, STARTS, POINTS = 5.0, 3, 12
HTTP = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]

# Records the duration of each frame: the time between two callbacks of requestAnimationFrame.
FRAMES = """() => {
    window.frames_ = []
    let last = performance.now()
    const next = (now) => { window.frames_.push(now - last); last = now; window.raf_ = requestAnimationFrame(next) }
    window.raf_ = requestAnimationFrame((now) => { last = now; window.raf_ = requestAnimationFrame(next) })
}"""
IS_ON_THE_MAP = "([x, y]) => document.elementFromPoint(x, y)?.closest('.map-canvas') != null"
# Measures the time from the pointer's event to the frame after the card is shown.
WATCH_HOVER = """() => {
    window.hover_ = new Promise((done) => {
        let moved = null
        document.addEventListener('mousemove', () => { moved ??= performance.now() }, {capture: true})
        const look = () => {
            const card = document.querySelector('.map-card')
            if (moved !== null && card && !card.hidden && card.querySelector('.id'))
                requestAnimationFrame(() => done(performance.now() - moved))
            else requestAnimationFrame(look)
        }
        look()
    })
}"""
# Measures the time from the click to the frame in which every picture in the window is decoded, or in which the page
# states that there is none.
WATCH_PICTURES = """(where) => {
    window.pictures_ = new Promise((done) => {
        let began = null
        document.addEventListener('click', () => { began ??= performance.now() }, {capture: true})
        const look = () => {
            const seen = [...document.querySelectorAll(where + ' img')].filter((one) => {
                const box = one.getBoundingClientRect()
                return box.top < innerHeight && box.bottom > 0
            })
            const none = [...document.querySelectorAll(where + ' p')].some((p) => p.textContent.includes('no image'))
            const there = seen.every((one) => one.complete && one.naturalWidth > 0)
            if (began !== null && (none || seen.length > 0) && there)
                requestAnimationFrame(() => done(performance.now() - began))
            else requestAnimationFrame(look)
        }
        look()
    })
}"""


# Measures the time from the click to the frame after the sum of the ledger is shown.
WATCH_PAIR = """() => {
    window.pair_ = new Promise((done) => {
        let began = null
        document.addEventListener('click', () => { began ??= performance.now() }, {capture: true})
        const look = () => {
            if (began !== null && document.querySelector('[data-sum]'))
                requestAnimationFrame(() => done(performance.now() - began))
            else requestAnimationFrame(look)
        }
        look()
    })
}"""


@contextlib.contextmanager
def serving(command: list[str], **how: object) -> Iterator[str]:
    """Run a server, and yield the address that it prints first."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload]
    try:
        line = process.stdout.readline()
        address = re.search(r"http://[\d.:]+/", line)
        if address is None:
            raise SystemExit(f"no address in {line!r} of {' '.join(command)}")
        yield address[0]
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """Open a page with an empty cache."""
    context = browser.new_context(viewport=WINDOW)
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


def painted(page: Page, mark: str) -> float:
    """Seconds from the start of the navigation to a performance mark that the page sets."""
    while not page.evaluate(f"performance.getEntriesByName('{mark}').length"):  # the mark holds its own time
        page.wait_for_timeout(50)
    return float(page.evaluate(f"performance.getEntriesByName('{mark}')[0].startTime")) / 1000


def cold(address: str) -> tuple[float, float]:
    """Seconds to the first frame of the map with its dots, and with its edges, in a browser that was just started."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        with opened(browser, address) as page:
            return painted(page, "explorer:map"), painted(page, "explorer:edges")


def moved(page: Page) -> list[float]:
    """Milliseconds per frame during five seconds of continuous dragging and zooming."""
    box = page.locator(".map-canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.evaluate(FRAMES)
    step = 0
    while page.evaluate("window.frames_.reduce((sum, frame) => sum + frame, 0)") < 1000 * SCRIPT_SECONDS:
        phase = step % 40
        if phase < 10:
            page.mouse.wheel(0, -120)
        elif phase == 10:
            page.mouse.down()
        elif phase < 29:
            page.mouse.move(x + 12 * (phase - 20), y + 8 * (phase - 20))
        elif phase == 29:
            page.mouse.up()
            page.mouse.move(x, y)
        else:
            page.mouse.wheel(0, 120)
        page.wait_for_timeout(16)
        step += 1
    page.mouse.up()
    return [float(frame) for frame in page.evaluate("cancelAnimationFrame(window.raf_), window.frames_")]


def dots(page: Page, count: int) -> list[tuple[float, float]]:
    """Positions of dots that the pointer can reach. They are read while the arrow keys step from dot to dot."""
    page.locator(".map-canvas").focus()
    points = []
    for at in range(count):
        page.keyboard.press(("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")[at // 3 % 4])
        page.wait_for_timeout(350)
        ring = page.locator(".map-ring").bounding_box()
        assert ring is not None
        point = (ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
        if page.evaluate(IS_ON_THE_MAP, point):  # the dot is not under the legend
            points.append(point)
    page.keyboard.press("Escape")
    return list(dict.fromkeys(points))


def hovered(page: Page, points: list[tuple[float, float]]) -> list[float]:
    """For each dot, milliseconds from the pointer's arrival until the card is shown."""
    took = []
    for x, y in points:
        page.mouse.move(x, y - 400 if y > 500 else y + 400)
        page.wait_for_timeout(250)
        page.mouse.move(2, 400)  # move the pointer off the map
        page.locator(".map-card").wait_for(state="hidden")
        page.evaluate(WATCH_HOVER)
        page.mouse.move(x, y)
        took.append(float(page.evaluate("window.hover_")))
    return took


def clicked(page: Page, points: list[tuple[float, float]]) -> list[float]:
    """For each dot, milliseconds from a click until the concept is shown with its pictures."""
    took = []
    for x, y in points:
        page.evaluate(WATCH_PICTURES, ".map-panel")
        page.mouse.click(x, y)
        took.append(float(page.evaluate("window.pictures_")))
        page.get_by_role("button", name="Close the panel").click()
        page.get_by_label("Selected concept").wait_for(state="hidden")
        page.wait_for_timeout(300)
    return took


def followed(page: Page, count: int) -> list[float]:
    """Milliseconds from a click on a concept of a bridge until its page is shown with its pictures, `count` times."""
    took = []
    for at in range(count):
        page.evaluate("location.hash = '#/bridges'")
        link = page.locator(".bridge .concept-link").nth(2 * at)
        link.wait_for()
        page.wait_for_load_state("networkidle")
        page.evaluate(WATCH_PICTURES, ".concept-items")
        link.click()
        took.append(float(page.evaluate("window.pictures_")))
    return took


def matched(page: Page, count: int) -> list[float]:
    """Milliseconds from a click on the link of a pair until its ledger is shown, for the pairs of `count` images."""
    took = []
    for image in range(3, 3 + count):
        page.evaluate(f"location.hash = '#/item/i{image}'")
        link = page.locator(f".why[href*='/pair/{image},']").first
        link.wait_for()
        page.wait_for_load_state("networkidle")
        page.evaluate(WATCH_PAIR)
        link.click()
        took.append(float(page.evaluate("window.pair_")))
    return took


def demo(store: Path, study: str) -> list[Bar]:
    """Rows measured on the demo's store, over the live server."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "explore",
        study,
        "--store",
        str(store),
        "--no-browser",
        "--port",
        "0",
    ]
    with serving(command, cwd=ROOT) as address:
        starts = [cold(address) for _ in range(STARTS)]
        rows = [
            at_most(f"demo: first paint of the map, cold, slowest of {STARTS}", max(map(max, starts)), PAINT, "s"),
            shown("demo: its dots alone", max(first for first, _ in starts), "s"),
        ]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            with opened(browser, address) as page:
                painted(page, "explorer:edges")
                points = dots(page, POINTS)
                rows += answered("demo", hovered(page, points), clicked(page, points), followed(page, 6))
                pairs = matched(page, 6)
                rows += [
                    at_most(f"demo: link of a pair to its ledger, slowest of {len(pairs)}", max(pairs), PAIR, "ms"),
                    shown("demo: link of a pair, median", statistics.median(pairs), "ms"),
                ]
    return rows


def answered(name: str, hovers: list[float], clicks: list[float], pages: list[float]) -> list[Bar]:
    """Rows of hovering, clicking and following a bridge: the slowest time against its bar, and the median."""
    return [
        at_most(f"{name}: hover to card, slowest of {len(hovers)}", max(hovers), HOVER, "ms"),
        shown(f"{name}: hover to card, median", statistics.median(hovers), "ms"),
        at_most(
            f"{name}: click on a dot to its concept with pictures, slowest of {len(clicks)}", max(clicks), CONCEPT, "ms"
        ),
        shown(f"{name}: click on a dot, median", statistics.median(clicks), "ms"),
        at_most(
            f"{name}: bridge to a concept's page with pictures, slowest of {len(pages)}", max(pages), CONCEPT, "ms"
        ),
        shown(f"{name}: bridge to a concept's page, median", statistics.median(pages), "ms"),
    ]


def planted() -> list[Bar]:
    """Rows measured on 8,192 concepts and 20,000 bridges, all of them drawn."""
    scale = Scale()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DIST, folder, dirs_exist_ok=True)
        plant(Path(folder), scale)
        with serving(HTTP, cwd=folder, stderr=subprocess.DEVNULL) as address:
            every = f"{address}#/map?edges={scale.bridges}"
            starts = [cold(every) for _ in range(STARTS)]
            name = f"planted {scale.concepts:,} concepts, {scale.bridges:,} bridges"
            rows = [
                at_most(f"{name}: paint, cold, slowest of {STARTS}", max(map(max, starts)), PLANTED_PAINT, "s"),
                shown(f"{name}: dots alone", max(first for first, _ in starts), "s"),
            ]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                with opened(browser, every) as page:
                    painted(page, "explorer:edges")
                    page.wait_for_timeout(1500)
                    frames = sorted(moved(page))
                    rows += [
                        at_most(
                            f"{name}: slowest of {len(frames)} frames in 5 s of pan and zoom", frames[-1], FRAME, "ms"
                        ),
                        shown("median frame", statistics.median(frames), "ms"),
                        shown("95th percentile", frames[int(0.95 * len(frames))], "ms"),
                    ]
                with opened(browser, address) as page:
                    painted(page, "explorer:edges")
                    points = dots(page, POINTS)
                    rows += answered("planted", hovered(page, points), clicked(page, points), followed(page, 6))
    return rows


def opens_items(browser: Browser, address: str) -> float:
    """Seconds from the start of the navigation to the frame with all items."""
    with opened(browser, address) as page:
        return painted(page, "explorer:items")


def planted_items(count: int, paint: float) -> list[Bar]:
    """Rows measured on the map of planted items."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DIST, folder, dirs_exist_ok=True)
        plant(Path(folder), Scale(concepts=512, bridges=400, images=256, seeds=1, mapped=count))
        with serving(HTTP, cwd=folder, stderr=subprocess.DEVNULL) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, "--js-flags=--expose-gc"])
            name = f"planted {count:,} items"
            every = f"{address}#/items"
            rows = [at_most(f"{name}: paint, cold", opens_items(browser, every), paint, "s")]
            with opened(browser, every) as page:
                painted(page, "explorer:items")
                page.wait_for_timeout(1500)
                before = resident(browser)
                frames = sorted(moved(page))
                slowest = at_most if count <= SMOOTH else lambda label, value, bar, unit: shown(label, value, unit)
                rows += [
                    slowest(f"{name}: slowest of {len(frames)} frames in 5 s of pan and zoom", frames[-1], FRAME, "ms"),
                    shown("median frame", statistics.median(frames), "ms"),
                    at_most(f"{name}: memory of the tab", max(before, resident(browser)), TAB, "MB"),
                ]
            browser.close()
    return rows


def resident(browser: Browser) -> float:
    """MB of memory of the largest process that draws pages, its own and what it shares, from the browser's own list."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = [0.0]
    for process in processes:
        if process["type"] == "renderer":
            status = Path(f"/proc/{process['id']}/status").read_text()
            sizes.append(float(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000)  # type: ignore[index]
    return max(sizes)


def size(store: Path, study: str) -> list[Bar]:
    """MB of the published pages that a static host needs to show the demo, without the SAEs and tables beside them."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "published"
        command = [sys.executable, "-m", "flows.cli", "publish", study, "--store", str(store), "--to", str(target)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        pages = [target / name for name in ("index.html", "icon.svg", "assets", "data", "thumbs", "figures")]
        files = [file for page in pages for file in ([page] if page.is_file() else page.rglob("*")) if file.is_file()]
        rest = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
        site = sum(file.stat().st_size for file in files)
    return [
        at_most(f"static site of the demo, {len(files)} files", site / 1e6, SITE, "MB"),
        shown("with SAEs, statistics and card", rest / 1e6, "MB"),
    ]


def main() -> int:
    """Measure, print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--study", default=str(ROOT / "studies" / "demo.toml"))
    parser.add_argument("--only", choices=("demo", "planted", "items", "site"), action="append", help="may be repeated")
    arguments = parser.parse_args()
    store = arguments.store.resolve()
    parts = {
        "demo": lambda: demo(store, arguments.study),
        "planted": planted,
        "items": lambda: [row for count, paint in ITEMS.items() for row in planted_items(count, paint)],
        "site": lambda: size(store, arguments.study),
    }
    return finish("explorer", [row for name in arguments.only or parts for row in parts[name]()])


if __name__ == "__main__":
    sys.exit(main())
