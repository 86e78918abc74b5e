"""Write the golden results anew. Run `make golden` in the root of the checkout.

A stage whose figures have moved while its version stayed is refused and named: raise its version first.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]
os.environ["OMP_NUM_THREADS"] = "1"


def text_of(version: str, figures: dict[str, object]) -> str:
    """The text of the golden result of a stage: its version, and one line per figure."""
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(figures.items())]
    return f'{{\n "version": {json.dumps(version)},\n "figures": {{\n' + ",\n".join(lines) + "\n }\n}\n"


def write(folder: Path, into: Path = HERE) -> list[str]:
    """Make every stage's output in a folder and write its figures. Returns a sentence for each refused stage."""
    from golden_cases import make_all, stages
    from golden_figures import differences

    made, refused = make_all(folder), []
    for name, stage in stages().items():
        path = into / f"{name}.json"
        known = json.loads(path.read_text()) if path.exists() else {"version": None, "figures": {}}
        moved = differences(known["figures"], made[name])
        if moved and known["version"] == stage.version:
            refused.append(f"{name}: results moved: raise its version, {stage.version}, and write again: {moved[0]}")
        elif moved or known["version"] != stage.version:
            path.write_text(text_of(stage.version, made[name]))
    return refused


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        problems = write(Path(temporary))
    print("\n".join(problems) or "every golden result is up to date")
    sys.exit(1 if problems else 0)
