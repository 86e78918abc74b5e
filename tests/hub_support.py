"""A hub on loopback that answers as huggingface_hub expects, for tests of models and datasets that are fetched.

It serves repositories from memory: the information of a repository, its tree of files, and the files themselves (HEAD
and GET, with the ETag, the commit and the length). Failures are those of the hub: 401 with `RepoNotFound` or
`GatedRepo`, 403 with `GatedRepo` for an account without access, 404 with `RevisionNotFound` or `EntryNotFound`, 429 and
5xx.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_a_reader"
STRANGER = "hf_of_a_stranger"  # a valid token of an account to which no gated repository gives access


@dataclass
class Repository:
    """A repository: the files of each commit, and the commit of each branch or tag."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False
    private: bool = False


@dataclass
class Hub:
    """A running hub. `asked` lists the requests, as "METHOD path"."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failing: dict[str, tuple[int, int]] = field(default_factory=dict)  #: {part of a path: (status, times still)}

    def add(self, name: str, folder: Path, commit: str, ref: str = "main", **access: bool) -> Repository:
        """Publish the files of a folder, and of its subfolders, as a commit, and let a branch or tag point to it."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        repository = self.repositories.setdefault(name, Repository({}, {}, **access))
        repository.commits[commit], repository.refs[ref] = files, commit
        return repository

    def fetched(self) -> set[str]:
        """Names of the files whose contents were fetched."""
        asked = [line for line in self.asked if line.startswith("GET ") and "/resolve/" in line]
        return {line.partition("/resolve/")[2].partition("/")[2] for line in asked}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        for part, (status, times) in self.hub.failing.items():
            if part in path and times:
                self.hub.failing[part] = (status, times - 1)
                return self._send(status, b"", {"Retry-After": "7"})
        for kind in ("/api/models/", "/api/datasets/"):
            if path.startswith(kind):
                return self._api(path.removeprefix(kind))
        name, _, rest = path.removeprefix("/datasets")[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        found = self._allowed(name, revision, is_file=True)
        if found is None:
            return None
        commit, files = found
        if file not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = files[file]
        return self._send(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit})

    def _api(self, rest: str) -> None:
        name, kind, revision = rest, "", "main"
        for mark in ("/revision/", "/tree/", "/auth-check"):
            if mark in rest:
                name, kind, revision = rest.partition(mark)[0], mark, rest.partition(mark)[2] or "main"
        found = self._allowed(name, revision, is_file=kind == "/auth-check")
        if found is None:
            return
        commit, files = found
        if kind == "/tree/":
            answer: object = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
        else:
            gated = "manual" if self.hub.repositories[name].gated else False
            answer = {"id": name, "sha": commit, "gated": gated, "siblings": [{"rfilename": path} for path in files]}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _allowed(self, name: str, revision: str, is_file: bool) -> tuple[str, dict[str, bytes]] | None:
        """(commit, files) of a revision. None if it is refused, and the refusal is sent.

        The hub tells everybody what files a gated repository has, and gives their contents to readers alone.
        """
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        repository = self.hub.repositories.get(name)
        if given not in ("", TOKEN, STRANGER):
            return self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        if repository is None or (repository.private and given != TOKEN):
            return self._send(404 if given else 401, b"", {"X-Error-Code": "RepoNotFound"})
        if repository.gated and is_file and given != TOKEN:
            return self._send(403 if given else 401, b"", {"X-Error-Code": "GatedRepo"})
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return commit, repository.commits[commit]

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def point_to(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> None:
    """Let huggingface_hub, in this process, ask a hub, use a cache of its own, and not wait before it tries again."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    impatient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", impatient)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
