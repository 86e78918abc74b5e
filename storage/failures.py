"""Images that could not be acquired: counts by cause, the likely reason, and retries in later runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from storage.dataset import Dataset
from storage.duplicates import DUPLICATE
from storage.listing import Attempt, append_shard, read_attempts, read_listing, write_attempts
from storage.pairs import Check, read_failures, read_images
from storage.sources import Source, SourceError, is_transient
from storage.sources.files import INSTALL_HEIC, NOT_READ

MOST_TRIES = 3  # tries of one item, summed over all runs

#: (start of a cause, likely reason). A message gives the reason of the first entry that fits the most frequent cause.
LIKELY = (
    ("DNS failure", "names do not resolve: is the network up, and is the resolver (or a proxy) set for this machine?"),
    ("connection failed", "servers cannot be reached: is the network up, or is a firewall or proxy in between?"),
    ("timeout", "servers answer too slowly: lower pairs.concurrency, raise pairs.timeout, or check the bandwidth"),
    ("cut short", "connections are interrupted: lower pairs.concurrency, or check the network"),
    ("HTTP 401", "the server requires a login, which this source does not have"),
    ("HTTP 403", "the server refuses the requests: it may block this network or automatic downloads"),
    ("HTTP 429", "the server asks for fewer requests: lower pairs.concurrency and run again later"),
    ("HTTP 5", "the server is broken or busy: run again later"),
    ("HTTP 4", "the images are gone from the web: the list is old (lower pairs.min_success to go on without them)"),
    ("private address", "the images lie in a private network: pairs.allow_private_addresses = true lets them in"),
    ("X-Robots-Tag", "the owners forbid such use (noai); pairs.respect_noai = false ignores that"),
    ("too large", "the images are larger than pairs.max_image_bytes"),
    ("too many pixels", "the images have more pixels than pairs.max_pixels"),
    ("wrong hash", "the bytes are not those that were listed, or whose digest the list states: the files changed"),
    (
        "not an image",
        "the bytes are of another kind: pages in place of images (a login or consent page, old links), or other files",
    ),
    (
        NOT_READ,
        f"the images are in formats that are not read: for HEIC, {INSTALL_HEIC}; convert SVG, EPS, PDF and JPEG XL to "
        "PNG or JPEG",
    ),
    ("corrupt image", "the files are damaged, or were cut short when they were copied"),
    ("out of memory", "the images take more memory to decode than there is: lower pairs.max_pixels"),
    ("TLS failure", "certificates are not valid: is the clock right, and does a proxy intercept connections?"),
)


class TooFewPairs(RuntimeError):
    """The share of images that were acquired is below `pairs.min_success`. The message says what to change."""

    exit_code = 2


class Tally(NamedTuple):
    """Counts of acquired and failed items."""

    images: int  #: distinct items that were requested
    causes: Counter[str]  #: causes of the items that failed
    duplicates: int  #: images with the same bytes as an earlier image, kept or dropped
    torn: int  #: digests whose images differ in split number, since they have different group keys

    @property
    def failed(self) -> int:
        """Number of items that failed; dropped duplicates do not count as failed."""
        return self.causes.total() - self.causes[DUPLICATE]

    def told(self) -> str:
        """Return one line: how many images were acquired, and the causes of all failures, the most frequent first."""
        acquired = self.images - self.causes.total()
        share = f" ({acquired / self.images:.1%})" if self.images else ""
        line = f"{acquired:,} of {self.images:,} images acquired{share}"
        if self.causes:
            line += "; " + ", ".join(f"{count:,} {cause}" for cause, count in self.causes.most_common())
        if kept := self.duplicates - self.causes[DUPLICATE]:
            line += f"; {kept:,} {'is a copy' if kept == 1 else 'are copies'} of another image"
        return line

    def check(self, min_success: float) -> None:
        """Raise TooFewPairs, with the likely reason, when the share of acquired items is below `min_success`."""
        if _too_few(self.images, self.failed, min_success):
            raise TooFewPairs(
                f"{self.told()}. That is below pairs.min_success = {min_success:g}. Most likely {likely(self.causes)}"
            )


def _too_few(images: int, failed: int, min_success: float) -> bool:
    return failed > 0 and (images - failed) / images < min_success


class Progress:
    """Counts of acquired and failed items in the shards that a run has fetched so far.

    The counts stay in memory, so that each shard is read only once.

    An item that failed in one shard and was acquired in another counts as acquired.
    """

    def __init__(self) -> None:
        self.acquired = 0
        self.failed: dict[str, str] = {}  #: {source_key: cause}

    def add(self, store: Path, shard: Dataset) -> None:
        """Count the items of one more shard."""
        acquired, failed = _outcomes(store, shard)
        self.acquired += len(acquired)
        self.failed.update(failed)
        if self.failed:
            for key in acquired:
                self.failed.pop(key, None)

    def check(self, store: Path, shard: Dataset, min_success: float) -> None:
        """Raise TooFewPairs when the share of acquired items would be below `min_success` with this shard added.

        The shard is not added to the counts.
        """
        acquired, failed = _outcomes(store, shard)
        new = sum(key not in self.failed for key in failed) - sum(key in self.failed for key in acquired)
        count = len(self.failed) + new
        if _too_few(self.acquired + len(acquired) + count, count, min_success):
            whole = Progress()
            whole.acquired, whole.failed = self.acquired, dict(self.failed)
            whole.add(store, shard)
            causes = Counter(whole.failed.values())
            Tally(whole.acquired + len(whole.failed), causes, 0, 0).check(min_success)


def _outcomes(store: Path, shard: Dataset) -> tuple[list[str], dict[str, str]]:
    """Return the keys of a shard's acquired items, and {key: cause} of its failed items."""
    rows = read_images(store, shard, ["source_key", "error"])
    failed = rows.filter(pl.col("error").is_not_null())
    return rows.filter(pl.col("error").is_null())["source_key"].to_list(), dict(failed.iter_rows())


def likely(causes: Counter[str]) -> str:
    """Return the likely reason for the most frequent cause."""
    cause = next((cause for cause, _ in causes.most_common() if cause != DUPLICATE), "")
    return next((words for start, words in LIKELY if cause.startswith(start)), f"it is this: {cause}")


def tally(store: Path, pairs: Sequence[Dataset]) -> Tally:
    """Count the acquired and failed items of these shards. An item that moved counts only in its later shard."""
    if not pairs:
        return Tally(0, Counter(), 0, 0)
    rows = pl.concat([read_images(store, shard, ["source_key", "sha256", "split_u", "error"]) for shard in pairs])
    causes = Counter(read_failures(store, pairs)["cause"].to_list())
    good = rows.filter(pl.col("error").is_null(), pl.col("sha256").is_not_null())
    digests = good.group_by("sha256").agg(count=pl.len(), sides=pl.col("split_u").n_unique())
    same = int((digests["count"] - 1).sum()) + causes[DUPLICATE]
    return Tally(rows["source_key"].n_unique(), causes, same, int((digests["sides"] > 1).sum()))


def moved(store: Path, source: str, shard: int, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return {source_key: (cause, detail)} of items that failed in `shard` and were acquired in a later shard."""
    attempts = read_attempts(store, source) if keys else {}
    causes: dict[str, tuple[str, str]] = {}
    for key in keys:
        left = attempts[key].left.get(str(shard)) if key in attempts else None
        causes[key] = (left[0], left[1]) if left else ("came through in a later shard", "")
    return causes


def retry(
    store: Path,
    source: Source,
    recipe: str,
    listings: Sequence[Dataset],
    pairs: Sequence[Dataset],
    check: Check,
    *,
    retry_after: float,
    most: int,
) -> Dataset | None:
    """Retry the items whose cause is transient and whose pause is over, at most `most` of them.

    Returns the listing of a new shard with the items that succeeded. When no item succeeded, returns None and changes
    only the ledger of attempts. An item is tried at most MOST_TRIES times, summed over all runs. The pause is
    `retry_after` seconds after the first failure and doubles with each further failure.
    """
    now = time.time()
    failed = {row["source_key"]: row for row in read_failures(store, pairs).iter_rows(named=True)}
    known = read_attempts(store, recipe)
    attempts = {key: attempt for key, attempt in known.items() if attempt.left or key in failed}
    due = []
    for key, row in failed.items():
        last = attempts.get(key)
        if last is None or not last.tries:
            if is_transient(row["cause"]):
                attempts[key] = Attempt(1, now, row["cause"], last.left if last else {})
        elif _is_due(last, now, retry_after):
            due.append(key)
    succeeded = _try_again(store, source, listings, due[:most], check, attempts, now)
    listing = append_shard(store, recipe, succeeded) if succeeded else None
    for key in succeeded:
        left = {str(failed[key]["shard"]): [failed[key]["cause"], failed[key]["detail"] or ""]}
        attempts[key] = Attempt(0, now, "", {**attempts[key].left, **left})
    if attempts != known:
        write_attempts(store, recipe, attempts)
    return listing


def is_retry_due(store: Path, recipe: str, pairs: Sequence[Dataset], retry_after: float) -> bool:
    """Whether `retry` would try any item again, or record the first failure of any item. Changes nothing."""
    failed = read_failures(store, pairs)
    known = read_attempts(store, recipe) if failed.height else {}
    for key, cause in failed.select("source_key", "cause").iter_rows():
        last = known.get(key)
        if is_transient(cause) if last is None or not last.tries else _is_due(last, time.time(), retry_after):
            return True
    return False


def _is_due(last: Attempt, now: float, retry_after: float) -> bool:
    """Whether an item may be tried again: its cause is transient, tries are left, and its pause is over."""
    waited = now >= last.at + retry_after * 2 ** (last.tries - 1)
    return last.tries < MOST_TRIES and is_transient(last.cause) and waited


def _try_again(
    store: Path,
    source: Source,
    listings: Sequence[Dataset],
    due: Sequence[str],
    check: Check,
    attempts: dict[str, Attempt],
    now: float,
) -> list[str]:
    """Read the items `due`. Returns the keys of those that succeeded, and adds a try to `attempts` for each other."""
    if not due:
        return []
    listed = pl.concat([read_listing(store, listing) for listing in listings])
    rows = listed.filter(pl.col("source_key").is_in(list(due))).unique("source_key", keep="last", maintain_order=True)
    succeeded = []
    for key, got in zip(rows["source_key"].to_list(), source.read(rows["locator"].to_list()), strict=True):
        try:
            if isinstance(got, SourceError):
                raise got
            if got is not None:
                check(got)
            succeeded.append(key)
        except SourceError as error:
            attempts[key] = Attempt(attempts[key].tries + 1, now, error.cause, attempts[key].left)
    return succeeded
