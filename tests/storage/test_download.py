"""Downloads from a real HTTP server that fails as servers on the web do."""

from __future__ import annotations

import datetime
import email.utils
import gzip
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from web_support import BODY, Handler, Web

from storage.errors import BadInput
from storage.sources import SourceError, is_transient
from storage.sources import addresses as addresses_module
from storage.sources.addresses import is_public
from storage.sources.download import Policy, Wanted, discard, download, download_file

POLICY = Policy(concurrency=4, timeout=5.0, back_off=0.01, allow_private_addresses=True)


def get(url: str, folder: Path, policy: Policy = POLICY, digest: str = "") -> bytes | SourceError:
    path = folder / "body"
    error = next(download([Wanted(url, path, digest)], policy))
    assert path.exists() == (error is None)
    return error if error is not None else path.read_bytes()


def cause(url: str, folder: Path, policy: Policy = POLICY, digest: str = "") -> str:
    result = get(url, folder, policy, digest)
    assert isinstance(result, SourceError), result[:80]
    return result.cause


def test_a_body_arrives_as_it_is_and_nothing_else_is_left(web: Web, tmp_path: Path) -> None:
    assert get(web.serve("/a"), tmp_path) == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["body"]
    assert dict(web.asked[0][1])["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_permanent_answers_are_asked_for_once(web: Web, tmp_path: Path, status: int) -> None:
    assert cause(web.refuse("/a", status), tmp_path) == f"HTTP {status}"
    assert web.counts() == {"/a": 1}
    assert not is_transient(f"HTTP {status}")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_answers_are_tried_again_and_come_through(web: Web, tmp_path: Path, status: int) -> None:
    url = web.in_turn("/a", lambda h: h.answer(status, b""), lambda h: h.answer(200, BODY))
    assert get(url, tmp_path) == BODY
    assert web.counts() == {"/a": 2}


def test_tries_end(web: Web, tmp_path: Path) -> None:
    assert cause(web.refuse("/a", 503), tmp_path, POLICY._replace(tries=3)) == "HTTP 503"
    assert web.counts() == {"/a": 3}


def test_retry_after_is_waited_for(web: Web, tmp_path: Path) -> None:
    times: list[float] = []

    def noted(answer: tuple[int, bytes], **headers: str):
        def act(handler: Handler) -> None:
            times.append(time.monotonic())
            handler.answer(*answer, **headers)

        return act

    url = web.in_turn("/a", noted((429, b""), Retry_After="1"), noted((200, BODY)))
    assert get(url, tmp_path) == BODY
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_pause_that_is_too_long_is_left_to_a_later_run(web: Web, tmp_path: Path, form: str) -> None:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    headery_after = "3600" if form == "seconds" else email.utils.format_datetime(at, usegmt=True)
    assert cause(web.refuse("/a", 429, Retry_After=headery_after), tmp_path) == "HTTP 429"
    assert web.counts() == {"/a": 1}


def test_a_reset_connection_is_resumed_where_it_broke(web: Web, tmp_path: Path) -> None:
    url = web.tear("/a", at=5000, ETag='"v1"', Accept_Ranges="bytes")
    assert get(url, tmp_path, digest="sha256:" + hashlib.sha256(BODY).hexdigest()) == BODY
    _, second = web.asked
    start = int(second[1]["Range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 5000
    assert second[1]["If-Range"] == '"v1"'


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_tag_it_starts_over(web: Web, tmp_path: Path, etag: str | None) -> None:
    url = web.tear("/a", **({"ETag": etag} if etag else {}))
    assert get(url, tmp_path) == BODY
    assert "Range" not in web.asked[1][1]


def test_another_version_is_not_spliced(web: Web, tmp_path: Path) -> None:
    other = BODY[::-1]
    url = web.in_turn("/a", lambda h: h.torn(BODY, 5000, ETag='"v1"'), lambda h: h.ranged(other, ETag='"v2"'))
    assert get(url, tmp_path) == other
    assert "Range" in web.asked[1][1]


def test_a_server_that_answers_another_range_starts_over(web: Web, tmp_path: Path) -> None:
    url = web.in_turn(
        "/a",
        lambda h: h.torn(BODY, 5000, ETag='"v1"'),
        lambda h: h.answer(206, BODY[100:], Content_Range=f"bytes 100-{len(BODY) - 1}/{len(BODY)}"),
        lambda h: h.ranged(BODY, ETag='"v1"'),
    )
    assert get(url, tmp_path) == BODY
    assert "Range" not in web.asked[2][1]


def test_a_range_beyond_the_end_starts_over(web: Web, tmp_path: Path) -> None:
    url = web.in_turn(
        "/a",
        lambda h: h.torn(BODY, 5000, ETag='"v1"'),
        lambda h: h.answer(416, b""),
        lambda h: h.answer(200, BODY),
    )
    assert get(url, tmp_path) == BODY


def test_less_than_promised_is_cut_short(web: Web, tmp_path: Path) -> None:
    web.routes["/a"] = lambda h: h.short(BODY)
    assert cause(web("/a"), tmp_path) == "cut short"
    assert web.counts() == {"/a": 3}


def test_a_slow_body_times_out_though_it_never_falls_silent(web: Web, tmp_path: Path) -> None:
    web.routes["/a"] = lambda h: h.drip(3)
    assert cause(web("/a"), tmp_path, POLICY._replace(timeout=0.3)) == "timeout"
    assert web.counts() == {"/a": 1}  # this run asks once; a later run may ask again
    assert is_transient("timeout")


def test_a_closed_port_and_a_name_that_is_none(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert cause(f"http://127.0.0.1:{port}/", tmp_path, POLICY._replace(tries=1)) == "connection failed"
    assert cause("http://nowhere.invalid/", tmp_path, POLICY._replace(tries=1)) == "DNS failure"


def test_what_is_no_http_is_a_bad_response(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 this is a mail server\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert cause(f"http://127.0.0.1:{server.getsockname()[1]}/", tmp_path) == "bad response"
        thread.join()


@pytest.mark.parametrize(
    "url", ["", "file:///etc/hostname", "ftp://a.example/x", "http://", "http:///x", "javascript:1", "http://[::1"]
)
def test_only_http_and_https(tmp_path: Path, url: str) -> None:
    assert cause(url, tmp_path) == "bad URL"


@pytest.mark.parametrize("there", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x"])
def test_redirects_to_other_schemes_are_not_followed(web: Web, tmp_path: Path, there: str) -> None:
    assert cause(web.refuse("/a", 302, Location=there), tmp_path) == "redirect to another scheme"


def test_redirects_are_followed_up_to_a_number(web: Web, tmp_path: Path) -> None:
    web.serve("/b")
    assert get(web.refuse("/a", 301, Location="/b"), tmp_path / "1") == BODY
    assert cause(web.refuse("/loop", 302, Location="/loop"), tmp_path) == "too many redirects"
    assert web.counts()["/loop"] == 6


def test_private_addresses_are_refused_before_a_byte_is_sent(web: Web, tmp_path: Path) -> None:
    closed = POLICY._replace(allow_private_addresses=False)
    web.serve("/a")
    for url in (web("/a"), web("/a", "localhost"), web("/a", "[::1]"), web("/a", "[::ffff:127.0.0.1]")):
        assert cause(url, tmp_path, closed) == "private address"
    for odd in ("127.1", "2130706433", "0x7f000001"):  # other spellings of 127.0.0.1
        assert cause(web("/a", odd), tmp_path, closed) in ("bad URL", "private address")
    assert web.asked == []


def test_a_redirect_to_a_private_address_is_refused(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 127.0.0.1 stands for a public address, 127.0.0.2 for a private address. The server listens on 127.0.0.1 only.
    monkeypatch.setattr(addresses_module, "is_public", lambda address: address == "127.0.0.1")
    web.serve("/b")
    url = web.refuse("/a", 302, Location=web("/b", "127.0.0.2"))
    assert cause(url, tmp_path, POLICY._replace(allow_private_addresses=False)) == "private address"
    assert web.counts() == {"/a": 1}
    with socket.create_server(("127.0.0.2", 0)):  # 127.0.0.2 exists, but no server listens at the URL's port
        assert cause(url, tmp_path, POLICY._replace(tries=1)) == "connection failed"


def test_a_name_that_changes_its_address_gains_nothing(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = socket.getaddrinfo, iter(["93.184.216.34"])

    def rebinding(host: object, *args: object, **kwargs: object):
        # The first answer is public, which is what a check before connecting would see. All later answers are private.
        asked = host if host != "rebind.example" else next(answers, "127.0.0.1")
        return real(asked, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert socket.getaddrinfo("rebind.example", 80)[0][4][0] == "93.184.216.34"
    web.serve("/a")
    closed = POLICY._replace(allow_private_addresses=False)
    assert cause(web("/a", "rebind.example"), tmp_path, closed) == "private address"
    assert web.asked == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # metadata service of cloud providers
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),  # 127.0.0.1 through NAT64
        ("2002:7f00:1::", False),  # 127.0.0.1 through 6to4
        ("localhost", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("header", ["noai", "noindex, NoImageAI", "somebot: noai"])
def test_x_robots_tag_is_respected_unless_the_study_says_otherwise(web: Web, tmp_path: Path, header: str) -> None:
    url = web.serve("/a", X_Robots_Tag=header)
    assert cause(url, tmp_path) == "X-Robots-Tag"
    assert get(url, tmp_path, POLICY._replace(respect_noai=False)) == BODY


def test_other_robots_tags_do_not_matter(web: Web, tmp_path: Path) -> None:
    assert get(web.serve("/a", X_Robots_Tag="noindex, nofollow"), tmp_path) == BODY


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_known_sum_is_checked(web: Web, tmp_path: Path, algorithm: str) -> None:
    right = hashlib.new(algorithm, BODY).hexdigest()
    assert get(web.serve("/a"), tmp_path / "right", digest=f"{algorithm}:{right.upper()}") == BODY
    assert cause(web("/a"), tmp_path, digest=f"{algorithm}:{'0' * len(right)}") == "wrong hash"
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    assert web.counts() == {"/a": 2}


def test_sizes_are_bounded_whether_announced_or_not(web: Web, tmp_path: Path) -> None:
    small = POLICY._replace(max_bytes=100_000)
    assert cause(web.serve("/a", bytes(100_001)), tmp_path, small) == "too large"
    web.routes["/b"] = lambda h: h.endless(1000)
    assert cause(web("/b"), tmp_path, small) == "too large"
    assert list(tmp_path.iterdir()) == []


def test_a_compressed_body_is_not_unpacked(web: Web, tmp_path: Path) -> None:
    url = web.serve("/a", gzip.compress(bytes(1 << 20)), Content_Encoding="gzip")
    assert cause(url, tmp_path) == "compressed response"


def test_results_come_in_order_and_no_more_than_allowed_run_at_once(web: Web, tmp_path: Path) -> None:
    wanted = []
    for n in range(24):
        web.routes[f"/{n}"] = lambda h, n=n: (time.sleep(0.02 * (n % 3)), h.answer(200, b"%d" % n))
        wanted.append(Wanted(web(f"/{n}"), tmp_path / str(n)))
    wanted.insert(3, Wanted(web("/none"), tmp_path / "none"))
    errors = list(download(wanted, POLICY))
    assert [error.cause if error else None for error in errors] == [None] * 3 + ["HTTP 404"] + [None] * 21
    assert [(tmp_path / str(n)).read_bytes() for n in range(24)] == [b"%d" % n for n in range(24)]
    assert 1 < web.most_busy <= POLICY.concurrency


def test_what_is_there_is_not_asked_for_again(web: Web, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"kept")
    assert get(web.serve("/a"), tmp_path) == b"kept"
    assert web.asked == []
    discard(tmp_path / "body")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_stops_early_ends_the_thread(web: Web, tmp_path: Path) -> None:
    for n in range(50):
        web.routes[f"/{n}"] = lambda h: (time.sleep(0.05), h.answer(200, BODY))
    results = download([Wanted(web(f"/{n}"), tmp_path / str(n)) for n in range(50)], POLICY)
    assert next(results) is None
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "download"]
    assert len(web.asked) < 50


def test_a_disk_that_cannot_be_written_is_no_failed_item(web: Web, tmp_path: Path) -> None:
    (tmp_path / "body.part").mkdir()  # a folder at the path where the partial file is written
    with pytest.raises(IsADirectoryError):
        next(download([Wanted(web.serve("/a"), tmp_path / "body")], POLICY))


def test_a_large_file_goes_on_after_a_kill(web: Web, tmp_path: Path) -> None:
    body = os.urandom(1 << 20) * 12
    stuck = threading.Event()

    def stall(handler: Handler) -> None:
        handler.head(200, len(body), ETag='"v1"', Accept_Ranges="bytes")
        handler.wfile.write(body[: 9 << 20])
        stuck.wait(20)
        handler.close_connection = True

    url = web.in_turn("/big.tar", stall, lambda h: h.ranged(body, ETag='"v1"'))
    path = tmp_path / "big.tar"
    code = (
        "from pathlib import Path; from storage.sources.download import *; import sys\n"
        "download_file(sys.argv[1], Path(sys.argv[2]), Policy(allow_private_addresses=True))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, url, str(path)], env={**os.environ})
    part = tmp_path / "big.tar.part"
    until = time.monotonic() + 20
    while (not part.exists() or part.stat().st_size < (8 << 20)) and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    stuck.set()
    assert part.stat().st_size >= 8 << 20
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    assert download_file(url, path, POLICY, digest=digest).read_bytes() == body
    assert int(web.asked[1][1]["Range"].removeprefix("bytes=").rstrip("-")) >= 8 << 20


def test_a_large_file_that_cannot_be_downloaded_is_an_error(web: Web, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"/gone.zip cannot be downloaded: HTTP 404"):
        download_file(web("/gone.zip"), tmp_path / "gone.zip", POLICY)
