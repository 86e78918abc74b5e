"""The web application: the built front end, the study's data files, and the requests that need a server."""

from __future__ import annotations

import base64
import gzip
import json
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from explorer.ask import TooLong, as_csv
from explorer.guard import Guard
from explorer.live import Live
from report.explorer.release import MANIFEST
from storage.errors import BadInput, is_bad_input
from storage.user_labels import SHOWN

MAX_QUESTION = 100_000  # bytes of a request body that holds text
MAX_PICTURE = 32 << 20  # bytes of a request body that holds an image
MAX_PAIR = MAX_PICTURE * 4 // 3 + MAX_QUESTION  # bytes of a request body that holds an image in base64 and a caption
TYPES = {".js": "text/javascript", ".json": "application/json", ".webp": "image/webp", ".svg": "image/svg+xml"}
COMPRESSED = {"content-encoding": "gzip", "vary": "accept-encoding"}
SHRINKING = {".js", ".css", ".html", ".svg"}  # files of the front end that are sent compressed
PICTURES = {"PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"}  # formats of images that are served as the source gave them


class TooLarge(Exception):
    """A request body exceeds its limit."""


def application(live: Live, web: Path, port: int) -> Guard:
    """The application for one study. web: the built front end. port: the header Host must name it."""
    front = {path.relative_to(web).as_posix(): path for path in sorted(web.rglob("*")) if path.is_file()}
    handlers = Handlers(live, front)
    routes = [
        Route("/api/sql", handlers.sql, methods=["POST"]),
        Route("/api/sql.csv", handlers.sql_csv, methods=["POST"]),
        Route("/api/sql.parquet", handlers.sql_parquet, methods=["POST"]),
        Route("/api/encode", handlers.encode, methods=["POST"]),
        Route("/api/pair", handlers.pair, methods=["POST"]),
        Route("/api/below/{concept:int}", handlers.below, methods=["GET"]),
        Route("/api/labels", handlers.labels, methods=["POST"]),
        Route("/api/image/{image_id:int}", handlers.image, methods=["GET"]),
        Route("/{name:path}", handlers.file, methods=["GET"]),
    ]
    handled: dict[Any, Callable[[Request, Exception], Response]] = {
        BadInput: lambda _, error: failed(str(error), 400),
        TooLong: lambda _, error: failed(str(error), 408),
        TooLarge: lambda _, error: failed(str(error), 413),
        404: lambda _, error: failed("there is no such page", 404),
        405: lambda _, error: failed("this address is asked in another way", 405),
        500: lambda _, error: failed(f"the explorer failed: {type(error).__name__}", 500),
    }
    return Guard(Starlette(routes=routes, exception_handlers=handled), port)


def failed(reason: str, status: int) -> JSONResponse:
    """An error answer, whose text the front end shows."""
    return JSONResponse({"error": reason}, status)


class Handlers:
    """One method per address of the application."""

    def __init__(self, live: Live, front: dict[str, Path]) -> None:
        self.live, self.front = live, front
        self._shrunk: dict[str, tuple[int, bytes]] = {}  # (time of the file, its content compressed) by name

    async def file(self, request: Request) -> Response:
        """A file of the front end or of the study, looked up by its exact name; the name is never joined to a path."""
        name = request.path_params["name"] or "index.html"
        if name in self.front:
            if "gzip" in request.headers.get("accept-encoding", "") and Path(name).suffix in SHRINKING:
                return _file(name, await run_in_threadpool(self.shrunk, name), None, COMPRESSED)
            return _file(name, await run_in_threadpool(self.front[name].read_bytes), None)
        manifest = name == MANIFEST
        if name == SHOWN:  # the labels change while a run is served
            return _file(name, await run_in_threadpool(self.live.shown.labels), None)
        shown = await run_in_threadpool(self.live.renew) if manifest else self.live.shown
        if name not in shown.names:
            return failed("there is no such page", 404)
        tag = None if manifest else f'"{shown.digest[:20]}"'
        if tag is not None and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return _file(name, await run_in_threadpool(shown.read, name), tag)

    def shrunk(self, name: str) -> bytes:
        """A file of the front end, compressed at its first use, and again where it was built anew."""
        path = self.front[name]
        built = path.stat().st_mtime_ns
        if self._shrunk.get(name, (0, b""))[0] != built:
            self._shrunk[name] = built, gzip.compress(path.read_bytes(), 6, mtime=0)
        return self._shrunk[name][1]

    async def sql(self, request: Request) -> Response:
        """Answer a question in SQL as JSON."""
        answer = await run_in_threadpool(self.live.shown.asker.ask, await _question(request, "query"))
        return JSONResponse(answer._asdict())

    async def sql_csv(self, request: Request) -> Response:
        """Answer a question in SQL as CSV."""
        answer = await run_in_threadpool(self.live.shown.asker.ask, await _question(request, "query"))
        headers = {"content-disposition": 'attachment; filename="answer.csv"'}
        headers |= {"x-truncated": "true"} if answer.truncated else {}
        return Response(as_csv(answer), media_type="text/csv; charset=utf-8", headers=headers)

    async def sql_parquet(self, request: Request) -> Response:
        """Answer a question in SQL as a Parquet file."""
        answer = await run_in_threadpool(self.live.shown.asker.parquet, await _question(request, "query"))
        headers = {"content-disposition": 'attachment; filename="answer.parquet"'}
        headers |= {"x-truncated": "true"} if answer.truncated else {}
        data = base64.b64decode(answer.parquet)
        return Response(data, media_type="application/vnd.apache.parquet", headers=headers)

    async def encode(self, request: Request) -> Response:
        """Encode a caption or an image: the concepts that it activates and the nearest items."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("image/"):
            given: str | bytes = await _body(request, MAX_PICTURE)
        elif kind == "application/json":
            given = await _question(request, "text")
        else:
            raise BadInput(f"content type {kind!r}: application/json with a text, or image/*")
        key = request.query_params.get("key", "")
        return JSONResponse(await _loaded(self.live.shown.encode, key, given))

    async def pair(self, request: Request) -> Response:
        """Split the similarity of an image and a caption, and say what leaving out concepts does to it."""
        pair = pair_of(await _object(request, MAX_PAIR))
        key = request.query_params.get("key", "")
        return JSONResponse(await _loaded(self.live.shown.pairs.pair, key, *pair))

    async def below(self, request: Request) -> Response:
        """The items on which a concept just does not fire."""
        key, concept = request.query_params.get("key", ""), request.path_params["concept"]
        return JSONResponse(await _loaded(self.live.shown.below, key, concept))

    async def labels(self, request: Request) -> Response:
        """Give a concept a label of the user's, or remove it. Answers with all labels of the run."""
        body = await _object(request, MAX_QUESTION)
        given = body if isinstance(body, dict) else {}
        key, concept, label = given.get("key"), given.get("concept"), given.get("label")
        if (
            not isinstance(key, str)
            or not isinstance(concept, int)
            or not _is_id(concept)
            or not isinstance(label, str)
        ):
            raise BadInput('the body must be {"key": "model/sae/seed", "concept": number, "label": "..."}')
        return JSONResponse(await run_in_threadpool(self.live.shown.label, key, concept, _whole(label, "label")))

    async def image(self, request: Request) -> Response:
        """Serve an image as the source gave it, if a browser shows its format as an image."""
        data = await run_in_threadpool(self.live.shown.image, request.path_params["image_id"])
        kind = None if data is None else await run_in_threadpool(picture_type, data)
        if data is None or kind is None:
            return failed("the store holds no such picture", 404)
        return Response(data, media_type=kind, headers={"cache-control": "no-cache"})


def picture_type(data: bytes) -> str | None:
    """Media type of an image, from its bytes alone; None for other data, and for formats that can hold a script."""
    from vlm.pictures import open_raster

    try:
        with open_raster(data) as picture:
            kind = picture.format or ""
    except Exception:  # the plugins of the formats raise many kinds of errors
        return None
    return f"image/{kind.lower()}" if kind in PICTURES else None


def _file(name: str, data: bytes, tag: str | None, more: dict[str, str] | None = None) -> Response:
    suffix = Path(name).suffix
    kind = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"cache-control": "no-cache"} | ({"etag": tag} if tag else {}) | (more or {})
    return Response(data, media_type=kind, headers=headers)


def pair_of(body: Any) -> tuple[int | bytes, int | str, list[int], bool]:
    """(image, caption, concepts to leave out, whether to count ranks) of the body of a request for a pair.

    Raises BadInput for another body.
    """
    given = body if isinstance(body, dict) else {}
    image, caption, left_out = given.get("image"), given.get("caption"), given.get("without", [])
    ranks = given.get("ranks", True)
    whole = isinstance(ranks, bool) and isinstance(left_out, list) and all(_is_id(one) for one in left_out)
    if not whole or not all(isinstance(one, str) or _is_id(one) for one in (image, caption)):
        raise BadInput(
            'the body must be {"image": image_id or a picture in base64, "caption": pair_id or a text, '
            '"without": [concepts], "ranks": true or false}'
        )
    if isinstance(image, str):
        try:
            image = base64.b64decode(image, validate=True)
        except ValueError as error:
            raise BadInput(f"the image is neither an image_id nor a picture in base64: {error}") from error
    text = _whole(caption, "caption") if isinstance(caption, str) else caption
    return image, text, left_out, ranks  # type: ignore[return-value]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


async def _loaded(answer: Callable[..., Any], *arguments: Any) -> Any:
    """An answer that needs a model or an SAE. Raises BadInput, which says why, when one cannot be loaded."""
    try:
        return await run_in_threadpool(answer, *arguments)
    except ValueError as error:
        if is_bad_input(error):
            raise BadInput(str(error)) from error
        raise


async def _question(request: Request, name: str) -> str:
    """The text under one key of a JSON body. Raises BadInput when the body has no such text."""
    body = await _object(request, MAX_QUESTION)
    if not isinstance(body, dict) or not isinstance(body.get(name), str):
        raise BadInput(f'the body must be {{"{name}": "..."}}')
    return _whole(body[name], name)


async def _object(request: Request, most: int) -> Any:
    """The JSON body of a request."""
    try:
        return json.loads(await _body(request, most))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}") from error


def _whole(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"the {name} holds half a character") from error
    return text


async def _body(request: Request, most: int) -> bytes:
    """The body of a request. Raises TooLarge as soon as its size is known to exceed `most`."""
    declared = request.headers.get("content-length", "0")
    data = bytearray()
    if declared.isdecimal() and len(declared) < 12 and int(declared) <= most:
        async for part in request.stream():
            data += part
            if len(data) > most:
                break
        else:
            return bytes(data)
    raise TooLarge(f"at most {most} bytes are read here")
