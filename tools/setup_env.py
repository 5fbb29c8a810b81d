"""Set up ``.venv``: ROS 2 from wheels, the models' libraries, the generated interfaces and decaf_ros itself.

Needs CPython 3.11 to 3.13, its headers and a C++ compiler; no ROS. Run it as often as you like: a step whose inputs did not
change is skipped, and the whole takes a tenth of a second then. ``python3 tools/setup_env.py`` or any target of the Makefile.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# Apart from site-packages, so that the sources come first on Python's path and pip sees one decaf_ros only.
INTERFACES_DIR = "lib/decaf_ros_interfaces"
# A sourced ROS distribution or another virtual environment must not leak into the build.
FOREIGN_VARIABLES = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
)


def main() -> None:
    """Bring ``.venv`` up to date."""
    if not (VENV / "bin" / "pip").exists():
        check_machine()
        print(f"setup: creating {VENV}", flush=True)
        run(sys.executable, "-m", "venv", VENV)
    packages = [ROOT / name for name in ("constraints.txt", "requirements-sam2.txt", "setup.py")]
    step("packages", packages, "installing packages, some minutes", install_packages)
    interfaces = [
        ROOT / "CMakeLists.txt",
        ROOT / "package.xml",
        *sorted(ROOT.glob("action/*.action")),
        *sorted(ROOT.glob("msg/*.msg")),
        *sorted(ROOT.glob("srv/*.srv")),
    ]
    step("interfaces", [*packages, *interfaces], "building the ROS interfaces, half a minute", build_interfaces)


def check_machine() -> None:
    """Exit with the cause and the way out where something is missing that pip cannot install."""
    version = "{}.{}".format(*sys.version_info)
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"setup: this is Python {version}; the set-up is pinned for 3.11 to 3.13. Try: make PYTHON=python3.12 ...")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit("setup: the ROS 2 wheels exist for Linux on x86-64 only. Elsewhere, build with colcon in a ROS distribution")
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(f"setup: Python's venv module is incomplete. On Debian and Ubuntu: apt install python{version}-venv")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        sys.exit(f"setup: the headers of Python {version} are missing. On Debian and Ubuntu: apt install python{version}-dev")
    if "CXX" not in os.environ and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        sys.exit("setup: no C++ compiler found. On Debian and Ubuntu: apt install g++")


def step(name: str, inputs: list[Path], message: str, action: Callable[[], None]) -> None:
    """Run ``action`` unless it succeeded before with the same inputs at the same place."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in inputs:
        digest.update(path.read_bytes())
    stamp = VENV / f"decaf_{name}.stamp"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    print(f"setup: {message}", flush=True)
    action()
    stamp.write_text(digest.hexdigest())


def install_packages() -> None:
    """Install the pinned versions of everything, then decaf_ros in editable form."""
    pip_install("pip", "setuptools", "wheel")
    print("setup: torch (3 GB to download)", flush=True)
    pip_install("torch", "torchvision")
    # sam2 imports torch when it is built, hence the order; its version is in setup.py's requirements too.
    pip_install("--no-deps", "--require-hashes", "-r", "requirements-sam2.txt", constrained=False)
    print("setup: ROS 2, transformers, the simulator and the rest", flush=True)
    pip_install("-e", ".[ros,sim,dev]")


def pip_install(*arguments: str, constrained: bool = True) -> None:
    """``pip install`` without isolated builds, whose tools no constraint would pin."""
    constraints = ("-c", "constraints.txt") if constrained else ()
    run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-build-isolation", *constraints, *arguments)


def build_interfaces() -> None:
    """Generate, compile and install ``decaf_ros.action``, ``.msg`` and ``.srv`` into the virtual environment's own prefix."""
    paths = venv_paths()
    relocate_wheels(paths)
    build = VENV / "build" / "interfaces"
    shutil.rmtree(build, ignore_errors=True)
    shutil.rmtree(VENV / INTERFACES_DIR, ignore_errors=True)
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": VENV,
        "CMAKE_PREFIX_PATH": VENV,
        "Python3_EXECUTABLE": PYTHON,
        "PYTHON_INSTALL_DIR": INTERFACES_DIR,
        "BUILD_TESTING": "OFF",
        "DECAF_INSTALL_PYTHON": "OFF",
    }
    cmake = VENV / "bin" / "cmake"
    run(cmake, "-S", ROOT, "-B", build, "-G", "Ninja", *(f"-D{name}={value}" for name, value in options.items()))
    run(cmake, "--build", build)
    run(cmake, "--install", build)
    for metadata in (VENV / INTERFACES_DIR).glob("*.egg-info"):  # pip would take it for a second decaf_ros
        shutil.rmtree(metadata)
    Path(paths["site_packages"], "decaf_ros_interfaces.pth").write_text(f"{VENV / INTERFACES_DIR}\n")


def venv_paths() -> dict[str, str]:
    """Where the virtual environment keeps Python's and NumPy's headers and its packages."""
    code = (
        "import json, numpy, sysconfig; print(json.dumps({'python': sysconfig.get_path('include'),"
        " 'numpy': numpy.get_include(), 'site_packages': sysconfig.get_path('purelib')}))"
    )
    return json.loads(subprocess.run([PYTHON, "-c", code], env=environment(), check=True, capture_output=True).stdout)


def relocate_wheels(paths: dict[str, str]) -> None:
    """Point the CMake targets that the ROS wheels export from their build machine's Python and NumPy headers to ours."""
    python = r"/opt/python/cp\d+-cp\d+"
    for export in VENV.glob("share/**/*Export.cmake"):
        text = export.read_text()
        relocated = re.sub(rf"{python}/include/python3\.\d+", lambda _: paths["python"], text)
        relocated = re.sub(
            rf"{python}/lib/python3\.\d+/site-packages/numpy/_?core/include", lambda _: paths["numpy"], relocated
        )
        if relocated != text:
            export.write_text(relocated)


def environment() -> dict[str, str]:
    """The caller's environment without other installations of ROS, and with the virtual environment's programs first."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    return kept | {"PATH": f"{VENV / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}", "SAM2_BUILD_CUDA": "0"}


def run(*command: object) -> None:
    """Run a command in the repository root; exit with its output when it fails."""
    words = [str(part) for part in command]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nsetup: failed with status {done.returncode}: {' '.join(words)}")


if __name__ == "__main__":
    main()
