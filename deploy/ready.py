"""Wait until a server answers. Exit code 0 when the server answers, 1 when its process has ended or the time is over.

ready.py URL PID SECONDS
"""

import sys
import time
import urllib.request


def answers(url: str) -> bool:
    """Whether the server answers a request for its health. No proxy is asked for a server on this machine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return bool(opener.open(f"{url}/health", timeout=5).status == 200)
    except OSError:
        return False


def is_running(pid: int) -> bool:
    """Whether the process exists. A zombie does not count."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> int:
    """Ask the server ten times a second."""
    url, pid, end = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
    while not answers(url):
        if not is_running(pid) or time.monotonic() > end:
            return 1
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
