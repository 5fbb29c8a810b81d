"""Who may use the page: the token, and checks that keep other web sites in the same browser away from it."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

TOKEN_VARIABLE = "DECAF_WEB_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
_TOKEN_BYTES = 24
_LOOPBACK_NAMES = ("localhost", "ip6-localhost")

_HEADERS = {
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
        raise AccessError(f"the token file cannot be read: {error}") from error
    if token is not None and not _TOKEN.fullmatch(token):
        source = token_file or f"${TOKEN_VARIABLE}"
        raise AccessError(f"the token of {source} must be 16 or more of the characters A-Z a-z 0-9 . _ ~ -")
    return token


def make_token() -> str:
    """A new token that cannot be guessed."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


class AccessPolicy:
    """Refuses requests before any handler sees them, and puts the security headers on every answer.

    - ``Host`` must be an address, this machine's name or one of ``names``: a foreign name that was made to resolve to this
      machine (DNS rebinding) is refused.
    - ``Origin``, which browsers send with every request that changes something and with every websocket, must be this page.
    - The token, if there is one, must come as ``?token=`` of the page (which makes it a cookie), as that cookie, or as
      ``Authorization: Bearer``.

    Args:
        token: ``None`` lets everybody in who can connect.
        names: further host names under which the page is reached.
    """

    def __init__(self, token: str | None, names: Collection[str] = ()) -> None:
        self._token = token
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
            self._require(request, self._is_token(request.query["token"]))
            # No redirect: a browser that comes from a link elsewhere would follow it without a SameSite=Strict cookie.
            response = await handler(request)
            response.set_cookie(_cookie_name(request), self._token, httponly=True, samesite="Strict", secure=request.secure)
            return response
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        cookie = request.cookies.get(_cookie_name(request), "")
        self._require(request, self._is_token(bearer) or self._is_token(cookie))
        return await handler(request)

    def _check_host(self, request: web.Request) -> None:
        name = _host_name(request.headers.get("Host", ""))
        if name not in self._names and not _is_address(name):
            raise web.HTTPForbidden(
                text=f"this page is not known as {name!r}: start decaf_web with --allow-host NAME for that\n"
            )

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and _network_location(origin) != request.headers["Host"].lower():
            raise web.HTTPForbidden(text="requests of other web sites are refused\n")

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
        response.headers.update(_HEADERS)


def _cookie_name(request: web.Request) -> str:
    """Browsers share cookies between the ports of a host, and several robots may be forwarded to ports of one."""
    return f"decaf_web_{request.url.port}"


def _network_location(origin: str) -> str:
    """Host and port of an ``Origin`` header, lower case; "" for one that is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """Host name or address of a ``Host`` header, lower case; "" for one that is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
