"""Concurrent downloads over http and https. They are streamed to disk, retried after transient errors, and checked
against a digest if it is known.

A download never connects to an address that the policy forbids, never follows a redirect to a scheme other than http
and https, and never keeps more bytes than the policy allows.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import email.utils
import hashlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from storage.dataset import locked
from storage.errors import BadInput
from storage.sources import SourceError, is_transient
from storage.sources.addresses import PrivateAddressError, socket_factory

if TYPE_CHECKING:  # aiohttp takes a fifth of a second to import
    import aiohttp
    from yarl import URL

log = logging.getLogger("bridgescope")

USER_AGENT = "bridgescope (pairs for a study of embeddings)"
REDIRECTS = 5
REDIRECTING = (301, 302, 303, 307, 308)
FORBIDDING = ("noai", "noimageai")
RESUMED_BYTES = 8 << 20  # smaller bodies can be resumed after an error, but not after a kill
LOG_SECONDS = 30.0  # seconds between two log lines on a long download


class Wanted(NamedTuple):
    """A response body to download: its URL, the path of its file, and its digest if known."""

    url: str
    path: Path  #: path of the complete body; if this file exists, the body is not requested
    digest: str = ""  #: "sha256:..." or "md5:..." in hexadecimal, "" when no digest is known


class Policy(NamedTuple):
    """Concurrency, limits and permissions of downloads."""

    concurrency: int = 64
    timeout: float = 15.0  #: seconds for a whole body; with 0, only STALL_SECONDS limits the time
    tries: int = 3  #: number of tries per run, for a body that fails by a transient cause
    back_off: float = 0.5  #: seconds before the second try, doubled for each further try, times a random 0.5 to 1.5
    longest_wait: float = 30.0  #: seconds; if a server asks for a longer pause, the body fails in this run
    max_bytes: int = 32 << 20
    allow_private_addresses: bool = False
    respect_noai: bool = True


STALL_SECONDS = 60.0  # a download fails when no byte arrives for this time


Pending = concurrent.futures.Future[SourceError | None]  # one body's result: its error, or None


class _Refused(SourceError):
    """A response with an error status, and the server's Retry-After if it sent one."""

    def __init__(self, cause: str, detail: str, retry_after: float | None) -> None:
        super().__init__(cause, detail)
        self.retry_after = retry_after


def download(
    wanted: Sequence[Wanted], policy: Policy, arrived: Callable[[int], None] | None = None
) -> Iterator[SourceError | None]:
    """Download bodies, `policy.concurrency` at a time. Yields one result per body, in the order of `wanted`.

    A result is None when the body is complete at its path, else its error. `arrived` is called with the index of each
    body as soon as the body is complete. Downloads run in a separate thread, ahead of the caller; bodies that finish
    early wait on disk, not in memory. Raises OSError when the disk cannot be written.
    """
    futures: list[Pending] = [concurrent.futures.Future() for _ in wanted]
    todo = [place for place, one in enumerate(wanted) if not one.path.exists()]
    for place in sorted(set(range(len(wanted))) - set(todo)):
        futures[place].set_result(None)
        if arrived is not None:
            arrived(place)
    for folder in {one.path.parent for one in wanted}:
        folder.mkdir(parents=True, exist_ok=True)
    crew = _Crew(wanted, futures, todo, policy, arrived)
    thread = threading.Thread(target=crew.run, name="download", daemon=True)
    if todo:
        thread.start()
    try:
        for future in futures:
            yield future.result()
    finally:
        crew.stop()
        if todo:
            thread.join()


def download_file(url: str, path: Path, policy: Policy, *, digest: str = "", max_bytes: int = 1 << 40) -> Path:
    """Download one large file, or resume its interrupted download. Raises BadInput, with the cause, when this fails."""
    whole = policy._replace(timeout=0.0, max_bytes=max_bytes, concurrency=1)
    if path.exists():
        return path
    with locked(path):
        log.info("downloading %s", url)
        (error,) = download([Wanted(url, path, digest)], whole)
    if error is not None:
        raise BadInput(f"{url} cannot be downloaded: {error}")
    return path


class _Crew:
    """The workers of one call of `download`. They share an event loop in a separate thread."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        futures: Sequence[Pending],
        todo: Sequence[int],
        policy: Policy,
        arrived: Callable[[int], None] | None,
    ) -> None:
        self.wanted, self.futures, self.todo, self.policy, self.arrived = wanted, futures, todo, policy, arrived
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def run(self) -> None:
        """Work until all futures have a result. An error that stops the work is set on the remaining futures."""
        try:
            asyncio.run(self._work())
        except asyncio.CancelledError:
            pass  # the caller does not want the remaining results
        except BaseException as error:
            cause = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            for future in self.futures:
                if not future.done():
                    future.set_exception(cause)

    def stop(self) -> None:
        """Stop the workers. Called from another thread."""
        self._stopped = True
        if self._loop is not None and self._task is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop may close between the check and the call
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def _work(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._stopped:
            return
        # The body with the lowest index comes first: a retry goes ahead of later bodies, since the reader waits for it.
        queue: asyncio.PriorityQueue[tuple[int, int]] = asyncio.PriorityQueue()
        for place in self.todo:
            queue.put_nowait((place, 1))
        left = len(self.todo)
        finished = asyncio.Event()

        async def worker() -> None:
            nonlocal left
            while True:
                place, tries = await queue.get()
                error = await attempt(session, self.wanted[place], self.policy)
                wait = self._wait(error, tries)
                if wait is not None:
                    asyncio.get_running_loop().call_later(wait, queue.put_nowait, (place, tries + 1))
                    continue
                if error is None and self.arrived is not None:
                    self.arrived(place)
                self.futures[place].set_result(error)
                left -= 1
                if left == 0:
                    finished.set()

        count = min(self.policy.concurrency, left)
        async with _session(self.policy, count) as session, asyncio.TaskGroup() as group:
            workers = [group.create_task(worker()) for _ in range(count)]
            await finished.wait()
            for task in workers:
                task.cancel()

    def _wait(self, error: SourceError | None, tries: int) -> float | None:
        """Return the seconds until the next try of a body; None if there is no next try in this run."""
        if error is None or not is_transient(error.cause) or tries >= self.policy.tries:
            return None
        if error.cause == "timeout" and self.policy.timeout:
            return None  # a next try could block a worker as long as this one; a later run makes it
        wait = self.policy.back_off * 2 ** (tries - 1) * random.uniform(0.5, 1.5)  # noqa: S311
        asked = error.retry_after if isinstance(error, _Refused) else None
        wait = wait if asked is None else asked + wait
        return wait if asked is None or asked <= self.policy.longest_wait else None


def _session(policy: Policy, connections: int) -> aiohttp.ClientSession:
    import aiohttp

    connector = aiohttp.TCPConnector(
        limit=connections, ttl_dns_cache=300, socket_factory=socket_factory(policy.allow_private_addresses)
    )
    total = policy.timeout or None
    stall = min(STALL_SECONDS, total or STALL_SECONDS)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=total, sock_connect=stall, sock_read=stall),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        auto_decompress=False,  # a small compressed body could expand to any size
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def attempt(session: aiohttp.ClientSession, wanted: Wanted, policy: Policy) -> SourceError | None:
    """Try once to download a body. Returns None when it is complete at its path, else the error with its cause."""
    import aiohttp

    try:
        await _get(session, wanted, policy)
    except SourceError as error:
        return error
    except TimeoutError:
        return SourceError("timeout", f"{policy.timeout or STALL_SECONDS:g} s")
    except aiohttp.ClientConnectorDNSError as error:
        return SourceError("DNS failure", f"{error.host}: {error.os_error}")
    except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch) as error:
        return SourceError("TLS failure", str(error))
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, PrivateAddressError):
            return SourceError("private address", f"{error.host} (allow_private_addresses is off)")
        return SourceError("connection failed", str(error.os_error))
    except aiohttp.ClientPayloadError as error:
        return SourceError("cut short", str(error))
    except (aiohttp.InvalidURL, ValueError) as error:
        return SourceError("bad URL", str(error))
    except aiohttp.ClientResponseError as error:
        return SourceError("bad response", str(error))
    except aiohttp.ClientError as error:
        return SourceError("connection failed", str(error) or type(error).__name__)
    return None


async def _get(session: aiohttp.ClientSession, wanted: Wanted, policy: Policy) -> None:
    """Send the request, follow redirects one by one, and receive the body."""
    partial = _Partial(wanted)
    start, headers = partial.resumable()
    url = _url(wanted.url)
    for _ in range(REDIRECTS + 1):
        async with session.get(url, allow_redirects=False, headers=headers) as response:
            if response.status not in REDIRECTING:
                await _receive(response, partial, start, policy)
                return
            target = url.join(_url(response.headers.get("Location", ""), relative=True))
            if target.scheme not in ("http", "https"):
                raise SourceError("redirect to another scheme", f"{target.scheme}:")
            url = target
    raise SourceError("too many redirects", f"more than {REDIRECTS}")


def _url(text: str, *, relative: bool = False) -> URL:
    """Parse a URL. Special characters are quoted only if necessary, since the URL may be signed."""
    from yarl import URL

    ready = text.isascii() and text.isprintable() and " " not in text
    url = URL(text, encoded=ready)
    if not relative and url.scheme not in ("http", "https"):
        raise SourceError("bad URL", f"{text[:80]!r}: only http and https")
    if not relative and not url.host:
        raise SourceError("bad URL", f"{text[:80]!r}: no host")
    return url


async def _receive(response: aiohttp.ClientResponse, partial: _Partial, start: int, policy: Policy) -> None:
    """Stream the body of a response to disk, check the body, and rename the file to its final path."""
    headers = response.headers
    if response.status == 416:
        partial.delete()
        raise SourceError("cut short", "the rest that was asked for is not there")
    if response.status not in (200, 206):
        raise _Refused(f"HTTP {response.status}", response.reason or "", _retry_after(headers))
    if policy.respect_noai and (directive := _forbidding_directive(headers)):
        raise SourceError("X-Robots-Tag", directive)
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise SourceError("compressed response", headers["Content-Encoding"])
    if response.status == 200 or not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        if response.status == 206:
            partial.delete()
            raise SourceError("cut short", f"asked from byte {start}, got {headers.get('Content-Range')}")
        start = 0
    size = start
    expected = None if response.content_length is None else start + response.content_length
    if expected is not None and expected > policy.max_bytes:
        raise SourceError("too large", f"{expected:,} bytes, allowed are {policy.max_bytes:,}")
    logged_at = time.monotonic()
    with partial.open(start, headers, expected or 0) as file:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > policy.max_bytes:
                partial.delete()
                raise SourceError("too large", f"more than the {policy.max_bytes:,} bytes allowed")
            file.write(chunk)
            partial.sum.update(chunk)
            if time.monotonic() - logged_at > LOG_SECONDS:
                logged_at = time.monotonic()
                log.info("%s: %d of %s MB", response.url.name, size >> 20, expected >> 20 if expected else "?")
    partial.finish()


class _Partial:
    """An incomplete body on disk. `<path>.part` holds its bytes, `<path>.note` its header ETag or Last-Modified."""

    def __init__(self, wanted: Wanted) -> None:
        self.path = wanted.path
        self.file, self.note = (wanted.path.with_name(wanted.path.name + end) for end in (".part", ".note"))
        self.algorithm, _, self.digest = wanted.digest.rpartition(":")
        self.sum = hashlib.new(self.algorithm or "sha256", usedforsecurity=False)

    def resumable(self) -> tuple[int, dict[str, str]]:
        """Return the number of bytes on disk, and the headers that request the rest of the same version of the body."""
        try:
            validator = self.note.read_text()
            with self.file.open("rb") as file:
                while block := file.read(1 << 20):
                    self.sum.update(block)
            size = self.file.stat().st_size
        except FileNotFoundError:
            return 0, {}
        return (size, {"Range": f"bytes={size}-", "If-Range": validator}) if size else (0, {})

    @contextlib.contextmanager
    def open(self, start: int, headers: Mapping[str, str], expected: int) -> Iterator[IO[bytes]]:
        """Open the file to write from byte `start` on. After an error, it stays if the server supports resuming."""
        etag = headers.get("ETag", "")
        # A weak ETag does not guarantee equal bytes, so it is not used. Last-Modified is used only without an ETag,
        # since two versions from the same second have the same Last-Modified.
        validator = headers.get("Last-Modified", "") if not etag else "" if etag.startswith("W/") else etag
        if headers.get("Accept-Ranges", "").lower() == "none":
            validator = ""
        if start == 0:
            self.sum = hashlib.new(self.algorithm or "sha256", usedforsecurity=False)
            self.note.unlink(missing_ok=True)
            if validator and expected >= RESUMED_BYTES:
                self.note.write_text(validator)
        with self.file.open("ab" if start else "wb") as file:
            try:
                yield file
            except BaseException:
                if validator and self.file.exists():
                    self.note.write_text(validator)
                raise

    def finish(self) -> None:
        """Check the digest, if one is known, and rename the file to its final path."""
        digest = self.sum.hexdigest()
        if self.digest and digest != self.digest.lower():
            self.delete()
            raise SourceError("wrong hash", f"{self.algorithm} is {digest}, expected {self.digest.lower()}")
        os.replace(self.file, self.path)
        self.note.unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete the incomplete body, so that the next try starts over."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a downloaded body, complete or incomplete."""
    for name in (path.name, path.name + ".part", path.name + ".note"):
        path.with_name(name).unlink(missing_ok=True)


def _forbidding_directive(headers: Mapping[str, str]) -> str:
    """Return the directive of the header X-Robots-Tag that forbids the use of an image, or "".

    The header may occur several times, and a directive may begin with the name of a crawler.
    """
    values = headers.getall("X-Robots-Tag", []) if hasattr(headers, "getall") else []
    for value in values:
        for directive in value.lower().split(","):
            if directive.rpartition(":")[2].strip() in FORBIDDING:
                return directive.strip()
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the header Retry-After asks for, as a number or a date; None without the header."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
    return max(0.0, (at - datetime.datetime.now(datetime.UTC)).total_seconds())
