"""`serve`: the explorer on loopback until it is interrupted."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from explorer.front import built_site
from storage.errors import BadInput

HOST = "127.0.0.1"
PORT = 8765  # another one is taken when it is in use, unless it was asked for


def serve(
    store: Path, study: str, port: int | None = None, browser: bool = True, tell: Callable[[str], None] = print
) -> None:
    """Serve a study's newest run on loopback, and open a browser where there is a screen. Returns when interrupted.

    `tell` gets the address. Raises BadInput when the front end was not built, the study has not run, or the port is
    in use.
    """
    web = built_site()
    import uvicorn

    from explorer.application import application
    from explorer.live import Live

    with contextlib.closing(listening(port)) as listener, contextlib.closing(Live(store, study)) as live:
        at = listener.getsockname()[1]
        address = f"http://{HOST}:{at}/"
        tell(f"explorer of study {study}: {address} (end with Ctrl-C)")
        if browser and has_screen():
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(
            application(live, web, at),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        with contextlib.suppress(KeyboardInterrupt):  # the way that it ends
            uvicorn.Server(config).run(sockets=[listener])


def listening(port: int | None) -> socket.socket:
    """A socket on loopback: at `port`, else at the usual one, else at any. Raises BadInput when `port` is in use."""
    for at in (PORT, 0) if port is None else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, at))
            listener.listen()  # now, since whoever reads the address may ask at once
        except (OSError, OverflowError) as error:  # in use, not allowed, or no port
            listener.close()
            if port is not None:
                raise BadInput(f"--port {port}: {error}") from error
            continue
        return listener
    raise BadInput(f"no port of {HOST} is free")


def has_screen() -> bool:
    """Whether a browser would be seen: elsewhere one for terminals would take this one."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
