"""Take the pictures of the explorer in docs/images, from the store that `make demo` filled. Run `make screenshots`.

The concept, the bridge and the pair that are shown are those of the strongest covariance bridge between two concepts.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
STRONGEST = """
SELECT b.model, b.sae, b.seed, b.image_concept, b.text_concept
FROM bridges AS b
WHERE b.image_concept <> b.text_concept AND b.sae = 'main'
ORDER BY b.covariance_bridge DESC, b.model, b.seed, b.image_concept, b.text_concept LIMIT 1
"""
PAIR = """
SELECT i.item_id AS image_id, t.item_id AS pair_id
FROM activations AS i
JOIN pairs AS p ON p.image_id = i.item_id
JOIN activations AS t ON t.item_id = p.pair_id
WHERE i.model = $model AND i.sae = $sae AND i.seed = $seed AND i.modality = 'image' AND i.concept_id = $image
    AND t.model = $model AND t.sae = $sae AND t.seed = $seed AND t.modality = 'text' AND t.concept_id = $text
ORDER BY i.activation * t.activation DESC, i.item_id, t.item_id LIMIT 1
"""


def addresses(store: Path) -> dict[str, str]:
    """{name of the picture: fragment of the view's address}."""
    from storage import open_catalog

    with open_catalog(store, "demo") as con:
        model, sae, seed, image, text = con.execute(STRONGEST).fetchall()[0]
        of = {"model": model, "sae": sae, "seed": seed, "image": image, "text": text}
        shown, caption = con.execute(PAIR, of).fetchall()[0]
    run = f"run={model}/{sae}/{seed}"
    return {
        "map": f"#/map?{run}",
        "items": f"#/items?{run}&concept={image}",
        "concept": f"#/concept/{image}?{run}",
        "bridges": f"#/bridges?{run}&sort=covariance_bridge&self=no",
        "pair": f"#/pair/{shown},{caption}?{run}",
    }


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def answers(server: subprocess.Popen[bytes], address: str) -> None:
    """Wait until the server answers. Raises RuntimeError when it ends or takes over a minute."""
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(f"the explorer ended with {server.returncode}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the explorer did not answer within a minute")


def take(page: Page, address: str, name: str) -> None:
    """Open a view, wait until nothing is loading, and write docs/images/NAME.png."""
    page.goto(address)
    page.locator("h1, canvas").first.wait_for()
    expect(page.locator(".loading")).to_have_count(0, timeout=60_000)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # the maps fade in
    page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")


def main() -> None:
    """Serve the demo's explorer and take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the store that `make demo` filled")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"), help="browser to use")
    given = parser.parse_args()
    port = free_port()
    command = ["-m", "flows.cli", "explore", "studies/demo.toml", "--store", str(given.store.resolve())]
    server = subprocess.Popen([sys.executable, *command, "--port", str(port), "--no-browser"], cwd=ROOT)
    try:
        answers(server, f"http://127.0.0.1:{port}/")
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=given.chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
            for name, fragment in addresses(given.store).items():
                take(page, f"http://127.0.0.1:{port}/{fragment}", name)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
