"""The process that runs SQL: one JSON line per query, one per answer. `Asker` starts it, and it ends with `Asker`.

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
from storage.wall import forbid_writing

MEMORY = 4 << 30  # bytes for queries: one string function can ask for more than a machine has


def main(store: str, study: str, number: str) -> None:
    """Answer the queries on standard input until it ends. The first statement forbids writing files, for good."""
    forbid_writing()
    con = open_catalog(store, run=read_run(Path(store), study, int(number)), guarded=True)
    con.execute("SELECT 1").fetchall()
    limit_memory()
    print(READY, end="", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with con.cursor() as own:
                reply = answered(own, request["query"], request["seconds"], request["rows"])._asdict()
        except (BadInput, TooLong) as error:
            reply = {"error": str(error), "late": isinstance(error, TooLong)}
        except MemoryError:
            reply = {"error": "the answer needs too much memory", "late": False}
        print(json.dumps(reply), flush=True)


def limit_memory() -> None:
    """Limit this process to MEMORY beyond its present size, where the system supports it."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
