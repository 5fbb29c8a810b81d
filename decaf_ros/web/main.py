"""decaf_web: a page to watch decaf_node and to ask it, on a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import rclpy
from aiohttp import web
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.startup import start_ros
from decaf_ros.web.access import TOKEN_VARIABLE, AccessError, AccessPolicy, find_token, is_loopback, make_token
from decaf_ros.web.server import make_app

DEFAULT_PORT = 8642
_SHUTDOWN_SECONDS = 2.0
_ANY_ADDRESS = ("0.0.0.0", "::")
_MAX_NAME_LENGTH = 160  # DDS allows 255, with the namespace, and what topics and the action add
_ROS_NAME = re.compile(r"(/|~/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
_HOST_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


def main(args: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; returns the exit status."""
    words = list(sys.argv if args is None else ["decaf_web", *args])
    arguments = _parser().parse_args(remove_ros_args(words)[1:])
    try:
        token = find_token(arguments.token_file)
    except AccessError as error:
        return _fail(str(error))
    # rclpy's own handlers would end the ROS context before the last answers are sent.
    start_ros("decaf_web", words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return asyncio.run(_serve(arguments, token))
    finally:
        rclpy.try_shutdown()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="decaf_web", description="A page to watch decaf_node and to ask it.")
    parser.add_argument(
        "--host", type=_host, default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--node",
        type=_node_name,
        default="decaf_node",
        metavar="NAME",
        help="the node to show, in this one's namespace unless it starts with /",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"demand the token in this file; default: ${TOKEN_VARIABLE}, or a new one unless only this machine can connect",
    )
    parser.add_argument(
        "--allow-host",
        type=_host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a name, besides this machine's own, by which browsers reach the page; can be given more than once",
    )
    return parser


def _host(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it needs an address; 0.0.0.0 is every network that this machine is on")
    return text


def _node_name(text: str) -> str:
    if len(text) > _MAX_NAME_LENGTH or not _ROS_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a node, such as decaf_node or /left/decaf_node")
    return text


def _host_name(text: str) -> str:
    """As the ``Host`` header has it. Addresses of every kind are allowed without being named."""
    if not _HOST_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name alone, such as robot.lan: leave out http:// and the port")
    return text


async def _serve(arguments: argparse.Namespace, chosen_token: str | None) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    token = chosen_token or (None if is_loopback(arguments.host) else make_token())
    policy = AccessPolicy(token, [arguments.host, *arguments.allow_host])
    with DecafClient(arguments.node, name="decaf_web") as client:
        # No access log: its lines would have the token in them.
        runner = web.AppRunner(make_app(client, policy), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, arguments.host, arguments.port).start()
            # Not to ROS's log, which goes over the network.
            print(_greeting(arguments.host, runner.addresses[0][1], None if chosen_token else token), flush=True)
            await stop.wait()
        except (OSError, OverflowError) as error:
            return _fail(f"cannot listen on port {arguments.port} of {arguments.host}: {error}; see --port and --host")
        finally:
            await runner.cleanup()
    return 0


def _greeting(host: str, port: int, new_token: str | None) -> str:
    """Where the page is; a token that was made up just now is part of it, one that the user chose is not shown."""
    if host in _ANY_ADDRESS:
        host = socket.gethostname()
    shown_host = f"[{host}]" if ":" in host else host
    query = f"?token={new_token}" if new_token else ""
    lines = [f"decaf_web: open http://{shown_host}:{port}/{query}"]
    if is_loopback(host):
        lines.append(f"decaf_web: from elsewhere: ssh -L {port}:localhost:{port} THIS_MACHINE, then the same address there")
    return "\n".join(lines)


def _fail(reason: str) -> int:
    print(f"decaf_web: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
