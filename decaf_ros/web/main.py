"""decaf_web: a page to watch decaf_node and to ask it, on a process of its own, which is started again when it crashes."""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from decaf_ros.ros.arguments import outside_ros_args
from decaf_ros.text import brief, quoted
from decaf_ros.web.access import HEADERS, TOKEN_VARIABLE, AccessError, AccessPolicy, find_token, is_loopback, make_token
from decaf_ros.web.connections import Connections, listen
from decaf_ros.web.supervisor import STOP_SIGNALS, keep_running, take_signals

DEFAULT_PORT = 8642
DEFAULT_ANSWER_SECONDS = 300.0
DEFAULT_MAX_QUESTIONS = 32
_SHUTDOWN_SECONDS = 2.0
_ANY_ADDRESS = ("0.0.0.0", "::")
_MAX_SECONDS = 86400.0
_MAX_NAME_LENGTH = 160  # DDS allows 255, with the namespace, and what topics and the action add
_ROS_NAME = re.compile(r"(/|~/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
_HOST_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


def main(args: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; returns the exit status."""
    words = list(sys.argv if args is None else ["decaf_web", *args])
    arguments = _parser().parse_args(outside_ros_args(words[1:]))
    try:
        chosen_token = find_token(arguments.token_file)
    except AccessError as error:
        return _fail(str(error))
    try:
        listening = listen(arguments.host, arguments.port)
    except (OSError, OverflowError, UnicodeError) as error:
        where = f"port {arguments.port} of {brief(arguments.host)}"
        return _fail(f"cannot listen on {where}: {brief(error)}; see --port and --host")
    token = chosen_token or (None if is_loopback(arguments.host) else make_token())
    greeting = _greeting(arguments.host, listening[0].getsockname()[1], None if chosen_token else token)
    policy = AccessPolicy(token, [arguments.host, *arguments.allow_host])
    # What was chosen, opened and made up is inherited by each child.
    return keep_running(lambda crash: _serve_with_ros(words, arguments, policy, listening, greeting, crash))


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
    parser.add_argument(
        "--answer-seconds",
        type=_seconds,
        default=DEFAULT_ANSWER_SECONDS,
        metavar="S",
        help="how long a question may take, minutes for a large model on a CPU (default: %(default)g)",
    )
    parser.add_argument(
        "--max-questions",
        type=_count,
        default=DEFAULT_MAX_QUESTIONS,
        metavar="N",
        help="how many questions of all tabs may be under way (default: %(default)s)",
    )
    return parser


def _host(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it needs an address; 0.0.0.0 is every network that this machine is on")
    return text


def _node_name(text: str) -> str:
    if len(text) > _MAX_NAME_LENGTH or not _ROS_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not the name of a node, such as decaf_node or /left/decaf_node")
    return text


def _host_name(text: str) -> str:
    """As the ``Host`` header has it. Addresses of every kind are allowed without being named."""
    if not _HOST_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not a name alone, such as robot.lan: leave out http:// and the port"
        )
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a number of seconds above 0, up to a day ({_MAX_SECONDS:g})")
    return seconds


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a whole number from 1 to 9999")
    return int(text)


def _serve_with_ros(
    words: Sequence[str],
    arguments: argparse.Namespace,
    policy: AccessPolicy,
    listening: Sequence[socket.socket],
    greeting: str,
    crash: str,
) -> int:
    """In the child. The parent needs neither ROS nor what draws images, and so has none of their threads and faults."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from decaf_ros.ros.client import DecafClient
    from decaf_ros.ros.startup import start_ros
    from decaf_ros.web.server import PageSettings, make_app

    remark = f"decaf_web was restarted, {crash}" if crash else ""
    settings = PageSettings(arguments.answer_seconds, arguments.max_questions, remark)

    async def serve(client: DecafClient) -> None:
        stop = asyncio.Event()
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        take_signals()
        async with Connections(HEADERS).serving(make_app(client, policy, settings), listening, _SHUTDOWN_SECONDS):
            # Not to ROS's log, which goes over the network.
            print(greeting, flush=True)
            await stop.wait()

    try:
        # rclpy's own handlers would end the ROS context before the last answers are sent.
        start_ros("decaf_web", words, signal_handler_options=SignalHandlerOptions.NO)
        client = DecafClient(arguments.node, name="decaf_web")
    except Exception as error:  # arguments, a folder for logs, rights of an enclave, and whatever else ROS wants
        return _fail(f"ROS cannot start: {brief(error)}")
    try:
        with client:
            asyncio.run(serve(client))
    finally:
        rclpy.try_shutdown()
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
