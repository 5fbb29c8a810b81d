"""What holds for the files of every model: they are found by an id, are read within bounds, and refused with the reason.

Whoever may name a model names a folder, and what lies in it may be damaged, unfit, or made to do harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from decaf_ros.models.errors import ModelNotFound, OptionsError
from decaf_ros.text import brief, with_kind

EMBEDDED = "embedded"


# Before this, torch runs code of a pickle that it was asked to read as weights only.
_FIRST_SAFE_TORCH = "2.6"


def require_safe_torch() -> None:
    """Raise :class:`ModelNotFound` where torch is too old to read files of foreign origin."""
    if torch.__version__ < _FIRST_SAFE_TORCH:  # not as texts: it is a TorchVersion
        raise ModelNotFound(
            f"torch {torch.__version__} can run code that a file of weights brings along, so no model is read with it; "
            'install a newer one: pip install "torch>=2.6"'
        )


def local_path(model_id: str) -> Path | None:
    """The file or folder here that an id names; ``None`` when there is none.

    Raises:
        ModelNotFound: the id is empty, which would name the current folder.
    """
    if not model_id.strip():
        raise ModelNotFound(f"the name of the model is empty; give {EMBEDDED!r}, a path or a hub id ('.' for this folder)")
    try:
        path = Path(model_id).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long a name, one with a NUL, the home of somebody unknown
        return None


def require_file(path: Path, most_bytes: int | None = None) -> None:
    """Refuse what is no file, or too large for what it is. A link to a file is one: the hub's own cache is made of links.

    Raises:
        ValueError: it is missing, a folder, a pipe or a device, or larger than ``most_bytes``.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is {'no file' if path.exists() or path.is_symlink() else 'missing'}")
    if most_bytes is not None and path.stat().st_size > most_bytes:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, and {most_bytes} are enough for any model")


def read_text(path: Path, most_bytes: int) -> str:
    """The text of a small file, in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: see :func:`require_file`; or it is in another encoding.
    """
    require_file(path, most_bytes)
    with path.open("rb") as file:
        content = file.read(most_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no text in UTF-8: {brief(error)}") from error


def require_memory(parameters: int, dtype: torch.dtype) -> None:
    """Refuse a model that is larger than the memory that is free: the system would end the whole process.

    Raises:
        ValueError: so it is.
    """
    needed = parameters * dtype.itemsize
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if needed > free:
        raise ValueError(
            f"its {parameters / 1e9:.1f} billion parameters need {needed / 1e9:.1f} GB of memory while they are read, and "
            f"{free / 1e9:.1f} GB are free; take a smaller model"
        )


@contextmanager
def told_as(problem: str, way_out: str) -> Iterator[None]:
    """Whatever is wrong with foreign files becomes a :class:`ModelNotFound`, be it found here or by a library, in Rust or not.

    Args:
        problem: what it means; the error follows in brackets.
        way_out: the sentence after that.

    Raises:
        OptionsError: as it came: the files are not to blame.
    """
    try:
        yield
    except (ModelNotFound, OptionsError):
        raise
    except Exception as error:
        raise ModelNotFound(f"{problem} ({_told(error)}). {way_out}") from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise ModelNotFound(f"{problem} ({_told(error)}). {way_out}") from error


def is_panic(error: BaseException) -> bool:
    """Whether it is a panic of a library in Rust, such as tokenizers: no ``Exception``, but nothing to end a program for."""
    return type(error).__module__ == "pyo3_runtime"


def _told(error: BaseException) -> str:
    """The error; its kind as well, unless it is one whose texts are sentences."""
    return brief(error) if isinstance(error, (OSError, ValueError)) and str(error) else with_kind(error)
