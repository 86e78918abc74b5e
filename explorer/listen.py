"""Serve the explorer on loopback until it is interrupted."""

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
PORT = 8765  # the default; if it is in use, a free port is taken. A port that the user names is not replaced


def serve(
    store: Path,
    study: str,
    port: int | None = None,
    browser: bool = True,
    tell: Callable[[str], None] = print,
    *,
    number: int | None = None,
    variant: str | None = None,
) -> None:
    """Serve a study's newest run on loopback, and open a browser if there is a screen. Returns when interrupted.

    tell: called with a line that holds the address. Raises BadInput when the front end is not built, the study has not
    run, or the port is in use.
    """
    web = built_site()
    import uvicorn

    from explorer.application import application
    from explorer.live import Live

    with (
        contextlib.closing(listening(port)) as listener,
        contextlib.closing(Live(store, study, number, variant)) as live,
    ):
        at = listener.getsockname()[1]
        address = f"http://{HOST}:{at}/"
        tell(f"explorer of study {study}, {live.shown.run}: {address} (end with Ctrl-C)")
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
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends the server
            uvicorn.Server(config).run(sockets=[listener])


def listening(port: int | None) -> socket.socket:
    """A listening socket on loopback, at `port`. For None, at PORT, or at any free port if PORT is in use.

    Raises BadInput when `port` is in use, not allowed or out of range.
    """
    for at in (PORT, 0) if port is None else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, at))
            listener.listen()  # listen before the address is printed, since a reader may open the address at once
        except (OSError, OverflowError) as error:  # the port is in use, not allowed, or out of range
            listener.close()
            if port is not None:
                raise BadInput(f"--port {port}: {error}") from error
            continue
        return listener
    raise BadInput(f"no port of {HOST} is free")


def has_screen() -> bool:
    """Whether there is a screen. Without a screen, a text browser would take over the terminal."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
