"""The notebook `docs/bridgescope.ipynb`: run it over a store, and render it as a page of the site."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "bridgescope.ipynb"
SECONDS = 300  # for one cell


def page() -> tuple[str, dict[str, str | bytes]]:
    """The notebook as Markdown, and its pictures by their paths."""
    import nbformat

    parts, pictures = [], {}
    for number, cell in enumerate(nbformat.read(FILE, as_version=4).cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.outputs):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"images/notebook-{number}-{place}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![Output of the cell above]({name})")
            else:
                parts.append(f"```text\n{_text(output).rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def run(store: Path, *, write: bool) -> list[str]:
    """Run every cell over a store that holds the demo; return what is wrong. `write` keeps the outputs in the file.

    The shape of each output (its text without numbers, or that it is a picture) must be that of the file.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    shown = nbformat.read(FILE, as_version=4)
    notebook = nbformat.read(FILE, as_version=4)
    kept = {name: os.environ.get(name) for name in ("BRIDGESCOPE_STORE", "PYTHONPATH", "PYTHONWARNINGS")}
    os.environ["BRIDGESCOPE_STORE"] = str(store.resolve())
    os.environ["PYTHONPATH"] = str(FILE.parents[1])
    os.environ["PYTHONWARNINGS"] = "ignore"  # a library asks for widgets, which no output needs
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", record_timing=False, extra_arguments=["--log-level=ERROR"]
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return [f"{FILE.name}: {error.ename}: {error.evalue}"]
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("text/html", None)  # the page and the check read the text
    if write:
        notebook.metadata = {"kernelspec": shown.metadata["kernelspec"], "language_info": {"name": "python"}}
        nbformat.write(notebook, FILE)
        return leaks(notebook)
    wrong = [
        f"{FILE.name}: cell {number} gives {_shapes(cell)}, the file shows {_shapes(before)}"
        for number, (cell, before) in enumerate(zip(notebook.cells, shown.cells, strict=True))
        if _shapes(cell) != _shapes(before)
    ]
    return wrong + leaks(shown)


def leaks(notebook: Any) -> list[str]:
    """Problems with outputs that tell of a machine: absolute paths and warnings."""
    texts = [(number, _text(out)) for number, cell in enumerate(notebook.cells) for out in cell.get("outputs", [])]
    telling = re.compile(r"(?<![\w./])/(?:home|tmp|root|usr|var|work)/|Warning")
    return [f"{FILE.name}: the output of cell {number} names a path" for number, text in texts if telling.search(text)]


def _shapes(cell: Any) -> list[str]:
    """What each output of a cell holds, without numbers and spacing, which may differ between machines."""
    return [
        "a picture" if "image/png" in out.get("data", {}) else _shape(_text(out)) for out in cell.get("outputs", [])
    ]


def _shape(text: str) -> str:
    """The first two lines of a text, which name the columns of a table, and its number of lines."""
    lines = [re.sub(r"[\s─│┌┐└┘├┤┬┴┼-]+", " ", re.sub(r"\d+(\.\d+)?", "#", line)).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    return f"{lines[:2]}, {len(lines)} lines"


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    return str(output.get("data", {}).get("text/plain", ""))
