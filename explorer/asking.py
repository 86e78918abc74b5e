"""The process that answers questions in SQL: one JSON line in, one out. Started by `Asker`, and ends with it.

python -m explorer.asking STORE STUDY RUN
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from pathlib import Path

from explorer.ask import READY, TooLong, answered
from storage.catalog import open_catalog
from storage.errors import BadInput
from storage.runs import read_run

MEMORY = 4 << 30  # bytes that questions may take: one string function can ask for more than a machine has


def main(store: str, study: str, number: str) -> None:
    """Answer until the input ends."""
    con = open_catalog(store, run=read_run(Path(store), study, int(number)), guarded=True)
    con.execute("SELECT 1").fetchall()
    limit_memory()
    print(READY, end="", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            with con.cursor() as own:
                said = answered(own, question["query"], question["seconds"], question["rows"])._asdict()
        except (BadInput, TooLong) as error:
            said = {"error": str(error), "late": isinstance(error, TooLong)}
        except MemoryError:
            said = {"error": "the answer needs too much memory", "late": False}
        print(json.dumps(said), flush=True)


def limit_memory() -> None:
    """Let this process have so much memory beyond what it has, where the system knows such a limit."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
