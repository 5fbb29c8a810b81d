"""The page under bytes that are hardly HTTP, bodies that are hardly JSON and frames that are hardly WebSocket's.

A real decaf_web, without a node: never an error that nobody has foreseen, and afterwards it is the same process and answers.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from page_process import PageProcess

# Silence is an answer, too, to a request that is not complete.
_PATIENCE_S = 0.1
_TIMEOUT_S = 60.0
_MAX_GROWTH_BYTES = 100 * 1024**2
_SERVICES = ("ask", "query", "remove_object", "remove_query", "reset", "nothing")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    with PageProcess(tmp_path_factory.mktemp("page") / "decaf_web.log") as page:
        serving = page.child
        page.request("GET", "/")
        before = serving.memory_info().rss
        yield page
        assert page.child == serving, page.output()
        assert page.request("GET", "/").status == 200
        assert serving.memory_info().rss - before < _MAX_GROWTH_BYTES
        assert page.stop() == 0
        assert "failed" not in page.output(), page.output()
        assert "Traceback" not in page.output(), page.output()


def exchange(page: PageProcess, *parts: bytes, expected: bytes = b"") -> bytes:
    """What comes back until the page closes the connection, or says nothing more after what is expected."""
    received = b""
    with socket.create_connection(("127.0.0.1", page.port), _TIMEOUT_S) as connection, contextlib.suppress(OSError):
        for part in parts:
            connection.sendall(part)
        while expected not in received:
            received += connection.recv(65536)
        connection.settimeout(_PATIENCE_S)
        while part := connection.recv(65536):
            received += part
    return received


def statuses(answers: bytes) -> set[int]:
    return {int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", answers, re.MULTILINE)}


def check(answers: bytes) -> None:
    """Refusals, and 503 because there is no node."""
    assert statuses(answers) <= {100, 101, 200, *range(400, 500), 503}, answers[:500]
    assert b"Traceback" not in answers


odd_bytes = st.one_of(st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass")))
methods = st.one_of(st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"PRI"]), odd_bytes)
targets = st.one_of(
    st.sampled_from([b"/", b"/app.js", b"/live/state", b"/live/overlay", b"*", b"//", b"http://a:b/", b"http://[", b"/%ff%00"]),
    st.sampled_from([f"/api/{service}".encode() for service in _SERVICES]),
    st.builds(lambda text: b"/?token=" + text, odd_bytes),
    odd_bytes,
)
headers = st.tuples(
    st.one_of(
        st.sampled_from([b"Host", b"Origin", b"Cookie", b"Authorization", b"Content-Length", b"Transfer-Encoding"]),
        st.sampled_from([b"Connection", b"Upgrade", b"Expect", b"Range", b"If-Modified-Since"]),
        st.sampled_from([b"Sec-WebSocket-Version", b"Sec-WebSocket-Key", b"Sec-WebSocket-Extensions"]),
        odd_bytes,
    ),
    st.one_of(
        st.sampled_from([b"http://localhost", b"http://[", b"chunked", b"-1", b"2", b"9" * 30, b"a" * 9000]),
        st.sampled_from([b"upgrade", b"websocket", b"13", b"100-continue", b"permessage-deflate; client_max_window_bits=99"]),
        odd_bytes,
    ),
)
odd_hosts = [b"127.0.0.1:abc", b"127.0.0.1:99999", b"[::1", b"[::1]:80", b"a@b", b"", b"\xff"]
hosts = st.sampled_from([b"localhost"] * 2 * len(odd_hosts) + odd_hosts)
kinds = st.sampled_from([b"", b"; charset=utf-8", b"; charset=foo", b'; charset="', b"; charset=idna", b";;=\xff"])
odd_encodings = [b"gzip", b"deflate", b"br", b"zstd", b"\xff"]
encodings = st.sampled_from([b"identity"] * 2 * len(odd_encodings) + odd_encodings)
bodies = st.one_of(
    st.sampled_from([b"{}", b"[" * 5000, b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n", b"\x1f\x8b\x08\0garbage"]),
    st.just(gzip.compress(bytes(1_000_000))),
    odd_bytes,
)


@examples(150)
@given(methods, targets, st.lists(headers, max_size=5), bodies)
def test_requests(page: PageProcess, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    lines = [b"%s: %s\r\n" % field for field in fields]
    check(exchange(page, b"%s %s HTTP/1.1\r\n" % (method, target), *lines, b"\r\n", body))


@examples(300)
@given(hosts, kinds, encodings, st.lists(headers, max_size=1), bodies)
def test_posts(
    page: PageProcess, host: bytes, kind: bytes, encoding: bytes, fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Closer to what is let in."""
    known = [(b"Host", host), (b"Content-Type", b"application/json" + kind), (b"Content-Encoding", encoding)]
    framed = [(b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")]
    lines = [b"%s: %s\r\n" % field for field in (*known, *framed, *fields)]
    check(exchange(page, b"POST /api/reset HTTP/1.1\r\n", *lines, b"\r\n", body))


@examples(40)
@given(st.lists(odd_bytes, max_size=4))
def test_bytes(page: PageProcess, parts: list[bytes]) -> None:
    check(exchange(page, *parts))


fields = st.sampled_from(["expression", "replace", "object_id", "query_id"])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=30)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
objects = st.one_of(
    st.fixed_dictionaries({"expression": values, "replace": st.booleans()}),
    st.dictionaries(st.one_of(fields, st.text(max_size=5)), values, max_size=3),
    values,
)


@examples(150)
@given(st.sampled_from(_SERVICES), objects, st.integers(-1, 40), st.binary(max_size=3))
def test_json(page: PageProcess, service: str, content: Any, cut: int, noise: bytes) -> None:
    """Values of any kind, whole or with bytes put in; numbers that JSON does not know, among them."""
    body = json.dumps(content).encode()
    if cut >= 0:
        body = body[:cut] + noise + body[cut:]
    reply = page.request("POST", f"/api/{service}", body, {"Content-Type": "application/json"})
    assert reply.status in (202, 400, 404, 413, 503), (reply, body)


def frame(flags: int, payload: bytes, claimed: int | None, masked: bool) -> bytes:
    """A frame of RFC 6455, whose length may be a lie."""
    length = len(payload) if claimed is None else claimed
    size = 126 if 125 < length < 2**16 else min(length, 127)
    extended = struct.pack("!H", length) if size == 126 else struct.pack("!Q", length) if size == 127 else b""
    return bytes([flags, size | (0x80 if masked else 0)]) + extended + (bytes(4) if masked else b"") + payload


frames = st.builds(
    frame,
    st.one_of(st.sampled_from([0x81, 0x01, 0x00, 0x80, 0x82, 0x88, 0x89, 0x8A, 0xC1]), st.integers(0, 255)),
    st.one_of(st.sampled_from([b"next", b"x" * 2000, b"\xff\xfe", b"\x03\xe8", b"\0\0"]), odd_bytes),
    st.one_of(st.none(), st.none(), st.sampled_from([0, 1, 126, 2**16, 2**31, 2**63, 2**64 - 1])),
    st.sampled_from([True, True, True, False]),
)


@examples(50)
@given(st.sampled_from(["state", "overlay", "heatmap"]), st.lists(frames, max_size=6))
def test_frames(page: PageProcess, name: str, sent: list[bytes]) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    handshake = (
        f"GET /live/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    answers = exchange(page, handshake.encode() + b"".join(sent), expected=b"\r\n\r\n")
    assert statuses(answers) == {101}, answers


def test_a_message_in_fragments_without_end_is_bounded(page: PageProcess) -> None:
    handshake = (
        b"GET /live/state HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", page.port), _TIMEOUT_S) as connection:
        connection.sendall(handshake)
        with pytest.raises(ConnectionError):
            send_for_ever(connection, frame(0x01, b"x", None, True), frame(0x00, b"x" * 64, None, True))


def send_for_ever(connection: socket.socket, first: bytes, further: bytes) -> None:
    """Much longer than any message may be, at least."""
    connection.sendall(first)
    for _ in range(1_000_000):
        connection.sendall(further)
