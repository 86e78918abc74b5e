"""The process that runs SQL for `Asker`. It reads one JSON line per query and prints one JSON line per answer.

python -m explorer.asking STORE STUDY RUN
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from pathlib import Path

from explorer.ask import READY, TooLong, answered, packed
from storage.catalog import open_catalog
from storage.errors import BadInput
from storage.runs import read_run
from storage.wall import forbid_writing

MEMORY = 4 << 30  # bytes for queries; without a limit, one call of a string function can use up all memory


def main(store: str, study: str, number: str) -> None:
    """Answer the queries on standard input until it ends.

    Before the catalog is opened, the process is forbidden to write files until it ends.
    """
    forbid_writing()
    con = open_catalog(store, run=read_run(Path(store), study, int(number)), guarded=True)
    con.execute("SELECT 1").fetchall()
    limit_memory()
    print(READY, end="", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with con.cursor() as own:
                answer = packed if request["form"] == "parquet" else answered
                reply = answer(own, request["query"], request["seconds"], request["rows"])._asdict()
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
