"""Command-line options that choose the models, alike in every command, and what they load."""

from __future__ import annotations

import argparse

import torch

from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.models.devices import resolve_device, tracker_dtype
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import VideoMllm
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.text import brief, quoted

_MOST_THREADS = 1024  # as of the node's cpu_threads; torch crashes where the system cannot start as many


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--mllm``, ``--tracker``, ``--device`` and ``--threads``."""
    parser.add_argument(
        "--mllm", default="embedded", help="language model: embedded, a folder, or a hub id (default: %(default)s)"
    )
    parser.add_argument(
        "--tracker", default="embedded", help="SAM 2: embedded, a folder or checkpoint, or a hub id (default: %(default)s)"
    )
    parser.add_argument("--device", type=_device, default="cpu", help="cpu, cuda, cuda:1, ..., or auto (default: %(default)s)")
    parser.add_argument(
        "--threads", type=_threads, default=0, help="CPU threads of torch; 0 for all cores (default: %(default)s)"
    )


def load_models(
    arguments: argparse.Namespace, options: MllmOptions | None = None, gated: bool = False
) -> tuple[VideoMllm, Sam2Tracker]:
    """The models that the options name.

    Args:
        arguments: what was typed.
        options: of the language model.
        gated: whether the tracker has its gates on, as in the node (see :class:`Sam2Tracker`).

    Raises:
        ModelNotFound: one of them cannot be had.
    """
    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    mllm = load_mllm(arguments.mllm, options, device=arguments.device)
    dtype, gates = tracker_dtype(arguments.device), {"memory_gating": gated, "motion_gating": gated}
    return mllm, Sam2Tracker.load(arguments.tracker, device=arguments.device, dtype=dtype, **gates)


def positive_int(text: str) -> int:
    """An argument type: a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no number above 0")
    return int(text)


def whole_number(text: str) -> int:
    """An argument type: a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no whole number from 0 on")
    return int(text)


def _threads(text: str) -> int:
    if whole_number(text) > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{brief(text, 20)} threads are more than {_MOST_THREADS}")
    return int(text)


def _device(text: str) -> torch.device:
    try:
        return resolve_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
