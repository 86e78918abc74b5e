"""Print the first free port of 127.0.0.1, starting at the port given as the argument."""

import socket
import sys


def free_port(first: int) -> int:
    """The first free port of 127.0.0.1 that is not below `first`."""
    for port in range(first, 65536):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SystemExit(f"no free port from {first} on")


if __name__ == "__main__":
    print(free_port(int(sys.argv[1])))
