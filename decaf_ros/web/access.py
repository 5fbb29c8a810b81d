"""Who may use the page: the token, and checks that keep other web sites in the same browser away from it."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import re
import secrets
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from decaf_ros.text import brief, quoted

TOKEN_VARIABLE = "DECAF_WEB_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
_TOKEN_BYTES = 24
_LOOPBACK_NAMES = ("localhost", "ip6-localhost")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_MAX_PORT = 65535

_FIRST_DELAY_SECONDS = 0.1
_MAX_DELAY_SECONDS = 2.0
_MEMORY_SECONDS = 60.0
_MAX_ADDRESSES = 1000
_REMEMBERED_GUESSES = 8

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_SIGN_IN = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>decaf: token needed</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="style.css">
<body class="sign-in">
<form class="card" action="/" method="get">
<h1>Token needed</h1>
{remark}<p>decaf_web prints its token when it starts, unless you gave it one of your own.</p>
<input type="password" name="token" aria-label="Token" placeholder="Token" autocomplete="off" required autofocus>
<button class="primary">Open</button>
</form>
"""
_WRONG_TOKEN = '<p class="wrong" role="alert">That was not the token.</p>\n'
# What the page above is made of, and so needs no token.
_PUBLIC = ("/style.css", "/icon.svg")


class AccessError(Exception):
    """The token cannot be used, or is not there; the message says what to do."""


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can connect to an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


def find_token(token_file: Path | None) -> str | None:
    """The token that the user chose: from the file, or else from the environment; ``None`` for neither.

    Raises:
        AccessError: the file cannot be read, or the token is too weak or has characters that need quoting somewhere.
    """
    try:
        token = token_file.read_text().strip() if token_file else os.environ.get(TOKEN_VARIABLE)
    except (OSError, ValueError) as error:
        raise AccessError(f"the token file cannot be read: {brief(error)}") from error
    if token is not None and not _TOKEN.fullmatch(token):
        source = token_file or f"${TOKEN_VARIABLE}"
        raise AccessError(f"the token of {brief(source)} must be 16 or more of the characters A-Z a-z 0-9 . _ ~ -")
    return token


def make_token() -> str:
    """A new token that cannot be guessed."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


@dataclass
class _Guesses:
    count: int = 0
    last_s: float = 0.0
    last: deque[int] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_GUESSES))


class Brake:
    """Answers to tokens are the slower the more wrong ones came from an address lately: 0.1 s, twice that, and so on up to 2 s.

    A right token waits as long as a wrong one, or whoever guesses would not need to wait to know that one is wrong. Behind an
    SSH tunnel or a proxy everybody has one address: so nobody is refused, and the wait is one that the page bears. The same
    wrong token again, as a tab sends it that was left open, is no further guess.
    """

    def __init__(self) -> None:
        self._guesses: OrderedDict[str, _Guesses] = OrderedDict()  # by address, the newest last

    def delay_s(self, address: str) -> float:
        """How long the next answer to that address has to wait."""
        guesses = self._guesses.get(_network(address))
        if guesses is None or time.monotonic() - guesses.last_s > _MEMORY_SECONDS:
            return 0.0
        return min(_MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(guesses.count - 1, 30))

    def note_wrong(self, address: str, given: str) -> None:
        """A wrong token came."""
        network = _network(address)
        if self.delay_s(address) == 0.0:
            self._guesses.pop(network, None)
        guesses = self._guesses.setdefault(network, _Guesses())
        self._guesses.move_to_end(network)
        guesses.last_s = time.monotonic()
        if hash(given) not in guesses.last:
            guesses.last.append(hash(given))
            guesses.count += 1
        while len(self._guesses) > _MAX_ADDRESSES:
            self._guesses.popitem(last=False)


class AccessPolicy:
    """Refuses requests before any handler sees them, and puts the security headers on every answer.

    - ``Host`` must be an address, this machine's name or one of ``names``: a foreign name that was made to resolve to this
      machine (DNS rebinding) is refused.
    - ``Origin``, which browsers send with every request that changes something and with every websocket, must be this page.
    - The token, if there is one, must come as ``?token=`` of the page (which makes it a cookie), as that cookie, or as
      ``Authorization: Bearer``. Wrong ones are answered ever more slowly, see :class:`Brake`.

    Args:
        token: ``None`` lets everybody in who can connect.
        names: further host names under which the page is reached.
    """

    def __init__(self, token: str | None, names: Collection[str] = ()) -> None:
        self._token = token
        self._brake = Brake()
        own = socket.gethostname().lower()
        self._names = {*_LOOPBACK_NAMES, own, f"{own}.local", *(name.lower() for name in names)}

    def protect(self, app: web.Application) -> None:
        """Put this policy before everything that the application does."""
        app.middlewares.append(self._check)
        app.on_response_prepare.append(self._add_headers)

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._check_host(request)
        self._check_origin(request)
        if self._token is None or request.path in _PUBLIC:
            return await handler(request)
        if request.path == "/" and "token" in request.query:
            self._require(request, await self._check_tokens(request, request.query["token"]))
            # No redirect: a browser that comes from a link elsewhere would follow it without a SameSite=Strict cookie.
            response = await handler(request)
            response.set_cookie(_cookie_name(request), self._token, httponly=True, samesite="Strict", secure=request.secure)
            return response
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        cookie = request.cookies.get(_cookie_name(request), "")
        self._require(request, await self._check_tokens(request, bearer, cookie))
        return await handler(request)

    def _check_host(self, request: web.Request) -> None:
        host = request.headers.get("Host", "")
        name, _ = _parse_host(host)
        if name not in self._names and not _is_address(name):
            raise web.HTTPForbidden(
                text=f"this page is not known as {quoted(name or host)}: start decaf_web with --allow-host NAME for that\n"
            )

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and _network_location(origin) != request.headers["Host"].lower():
            raise web.HTTPForbidden(text="requests of other web sites are refused\n")

    async def _check_tokens(self, request: web.Request, *given: str) -> bool:
        """Whether one of them is the token. What is not there costs no time."""
        address = request.remote or ""
        delay_s = self._brake.delay_s(address)
        wrong = [each for each in given if each and not self._is_token(each)]
        # Before anything is waited for: guesses side by side wait for each other, too.
        for each in wrong:
            self._brake.note_wrong(address, each)
        if any(given):
            await asyncio.sleep(delay_s)
        return len(wrong) < sum(map(bool, given))

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode(errors="replace"), self._token.encode())

    @staticmethod
    def _require(request: web.Request, authorised: bool) -> None:
        if authorised:
            return
        if request.path == "/":
            sign_in = _SIGN_IN.format(remark=_WRONG_TOKEN if "token" in request.query else "")
            raise web.HTTPUnauthorized(text=sign_in, content_type="text/html", headers={"WWW-Authenticate": "Bearer"})
        raise web.HTTPUnauthorized(
            text="a token is needed: the page asks for it when it is loaded again\n", headers={"WWW-Authenticate": "Bearer"}
        )

    @staticmethod
    async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)


def _cookie_name(request: web.Request) -> str:
    """Browsers share cookies between the ports of a host, and several robots may be forwarded to ports of one."""
    _, port = _parse_host(request.headers["Host"])
    return f"decaf_web_{port or (443 if request.secure else 80)}"


def _network_location(origin: str) -> str:
    """Host and port of an ``Origin`` header, lower case; "" for one that is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _parse_host(host: str) -> tuple[str, int | None]:
    """Host name or address, lower case, and port of a ``Host`` header; the name is "" for one that is malformed."""
    found = _HOST.fullmatch(host)
    if found is None:
        return "", None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > _MAX_PORT:
        return "", None
    return found["name"].strip("[]").lower(), port


def _network(address: str) -> str:
    """What one machine may have many addresses of: with IPv6, the first 64 bits."""
    try:
        return str(ipaddress.ip_network(f"{address.partition('%')[0]}/64", strict=False)) if ":" in address else address
    except ValueError:
        return address


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
