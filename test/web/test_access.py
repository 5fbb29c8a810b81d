"""Requests from outside, from other sites and without a token, against the policy behind a real socket."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from decaf_ros.web.access import AccessError, AccessPolicy, Brake, find_token, is_loopback, make_token

TOKEN = "correct-horse-battery"
PORT = 7777  # as in the Host header, which need not be the socket's when the port is forwarded


def ask(policy: AccessPolicy, path: str, headers: Mapping[str, str], method: str = "GET") -> tuple[int, Mapping[str, str], str]:
    """Status, headers and text of the answer of a small site under the policy."""

    async def exchange() -> tuple[int, Mapping[str, str], str]:
        app = web.Application()
        policy.protect(app)

        async def secret(_: web.Request) -> web.Response:
            return web.Response(text="secret")

        for known in ("/", "/api/query", "/style.css"):
            app.router.add_route("*", known, secret)
        async with TestClient(TestServer(app)) as client:
            reply = await client.request(method, path, headers={"Host": f"localhost:{PORT}", **headers})
            return reply.status, reply.headers.copy(), await reply.text()

    return asyncio.run(exchange())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8642", 200),
        ("[::1]:8642", 200),
        ("192.168.1.20:8642", 200),
        ("robot.lan:8642", 200),
        ("rebound.example:8642", 403),
        ("localhost.rebound.example", 403),
        ("127.0.0.1.rebound.example", 403),
        ("user@localhost", 403),
        ("127.0.0.1:abc", 403),
        ("127.0.0.1:65536", 403),
        ("127.0.0.1:²", 403),
        ("localhost:", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_a_foreign_name_that_leads_here_is_refused(host: str, status: int) -> None:
    assert ask(AccessPolicy(None, ["Robot.lan"]), "/", {"Host": host})[0] == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (f"http://localhost:{PORT}", 200),
        (f"https://localhost:{PORT}", 200),  # behind a proxy that adds TLS
        ("http://localhost:8000", 403),
        ("http://localhost", 403),
        ("https://evil.example", 403),
        (f"https://evil.example/localhost:{PORT}", 403),
        ("null", 403),
        ("http://[::1", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_of_other_sites_are_refused(method: str, origin: str, status: int) -> None:
    assert ask(AccessPolicy(None), "/api/query", {"Origin": origin}, method)[0] == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 401),
        ("/api/query", {}, 401),
        ("/api/nothing", {}, 401),
        ("/?token=wrong", {}, 401),
        ("/?token=", {}, 401),
        ("/?token=%ff%00", {}, 401),
        (f"/?token={TOKEN}", {}, 200),
        (f"/api/query?token={TOKEN}", {}, 401),
        ("/api/query", {"Authorization": f"Bearer {TOKEN}"}, 200),
        ("/api/query", {"Authorization": f"Bearer {TOKEN}x"}, 401),
        ("/api/query", {"Authorization": "Bearer"}, 401),
        ("/api/query", {"Cookie": f"decaf_web_{PORT}={TOKEN}"}, 200),
        ("/api/query", {"Cookie": f"decaf_web_{PORT}={TOKEN[:-1]}"}, 401),
        ("/style.css", {}, 200),
    ],
)
def test_token(path: str, headers: dict[str, str], status: int) -> None:
    answered, answer_headers, text = ask(AccessPolicy(TOKEN), path, headers)
    assert answered == status
    assert (text == "secret") == (status == 200)
    assert TOKEN not in text
    assert ("Set-Cookie" in answer_headers) == (path == f"/?token={TOKEN}")


@pytest.mark.parametrize(("path", "wrong"), [("/", False), ("/?token=wrong", True), ("/?token=", True)])
def test_who_gave_a_wrong_token_is_told(path: str, wrong: bool) -> None:
    _, _, text = ask(AccessPolicy(TOKEN), path, {})
    assert "Token needed" in text
    assert ("not the token" in text) == wrong


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites() -> None:
    _, headers, _ = ask(AccessPolicy(TOKEN), f"/?token={TOKEN}", {})
    cookie = headers["Set-Cookie"]
    assert cookie.startswith(f"decaf_web_{PORT}={TOKEN};")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))


@pytest.mark.parametrize("path", ["/", "/nothing"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_answer_has_the_security_headers(token: str | None, path: str) -> None:
    _, headers, _ = ask(AccessPolicy(token), path, {})
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECAF_WEB_TOKEN", raising=False)
    assert find_token(None) is None
    monkeypatch.setenv("DECAF_WEB_TOKEN", TOKEN)
    assert find_token(None) == TOKEN
    file = tmp_path / "token"
    file.write_text("another-good-token\n")
    assert find_token(file) == "another-good-token"
    for unfit in ("", "short", "sixteen characters", "ünusual-characters"):
        file.write_text(unfit)
        with pytest.raises(AccessError, match="16 or more"):
            find_token(file)
    with pytest.raises(AccessError, match="cannot be read"):
        find_token(tmp_path / "none")


def test_made_tokens_are_fit_and_differ(tmp_path: Path) -> None:
    made = {make_token() for _ in range(100)}
    assert len(made) == 100
    for token in made:
        (tmp_path / "token").write_text(token)
        assert find_token(tmp_path / "token") == token


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.20", False),
        ("robot", False),
        ("", False),
    ],
)
def test_only_loopback_addresses_go_without_a_token(host: str, local: bool) -> None:
    assert is_loopback(host) == local


def test_wrong_tokens_slow_answers_down_right_ones_included() -> None:
    """A right one that came sooner would tell whoever guesses when to give up waiting."""

    async def exchange() -> list[tuple[int, float]]:
        app = web.Application()
        AccessPolicy(TOKEN).protect(app)

        async def secret(_: web.Request) -> web.Response:
            return web.Response(text="secret")

        app.router.add_get("/", secret)
        async with TestClient(TestServer(app)) as client:

            async def attempt(token: str) -> tuple[int, float]:
                began = time.monotonic()
                headers = {"Host": "localhost", **({"Authorization": f"Bearer {token}"} if token else {})}
                reply = await client.get("/", headers=headers)
                return reply.status, time.monotonic() - began

            side_by_side = await asyncio.gather(*(attempt(f"guess {number}") for number in range(4)))
            return [max(side_by_side), await attempt(TOKEN), await attempt("")]

    wrong, right, none = asyncio.run(exchange())
    assert (wrong[0], right[0], none[0]) == (401, 200, 401)
    assert wrong[1] >= 0.4
    assert right[1] >= 0.8
    assert none[1] < right[1]


def test_the_delay_grows_to_a_bound_and_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    brake = Brake()
    delays = []
    for number in range(2000):
        delays.append(brake.delay_s("10.0.0.1"))
        brake.note_wrong("10.0.0.1", f"guess {number}")
    assert delays[:7] == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
    assert set(delays[7:]) == {2.0}
    assert brake.delay_s("10.0.0.2") == 0.0
    now_s += 61.0
    assert brake.delay_s("10.0.0.1") == 0.0
    brake.note_wrong("10.0.0.1", "one more")
    assert brake.delay_s("10.0.0.1") == pytest.approx(0.1)


def test_a_tab_with_an_old_token_is_not_taken_for_one_that_guesses() -> None:
    brake = Brake()
    for _ in range(100):
        brake.note_wrong("10.0.0.1", "old token")
    assert brake.delay_s("10.0.0.1") == pytest.approx(0.1)


def test_addresses_of_one_network_count_as_one_and_many_do_not_fill_the_memory() -> None:
    brake = Brake()
    for number in range(10):
        brake.note_wrong(f"2001:db8::{number:x}", f"guess {number}")
    assert brake.delay_s("2001:db8::ffff") == 2.0
    assert brake.delay_s("2001:db8:0:1::1") == 0.0
    tracemalloc.start()
    try:
        for number in range(20_000):
            brake.note_wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "x" * 100)
        assert tracemalloc.get_traced_memory()[0] < 4e6
    finally:
        tracemalloc.stop()
