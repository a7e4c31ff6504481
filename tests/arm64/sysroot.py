"""An arm64 Python with all that dllama needs, and the emulator, put together in a folder from
Debian's packages and PyPI's wheels. Nothing is installed on this machine, and no root is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).parents[2]
OF_PYTHON = ("python3", "libstdc++6")
OF_TESTS = ("pytest", "pytest-timeout", "hypothesis", "gguf")
GLIBC = range(17, 40)  # versions 2.x that wheels are built for
LIMIT_S = 900.0  # for each command


class Missing(Exception):
    """A sentence: what this machine lacks."""


@dataclass(frozen=True, slots=True)
class Sysroot:
    """A folder: `root` is an arm64 system, `site` its Python packages, `host` has the emulator."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def site(self) -> Path:
        return self.folder / "site"

    @property
    def python(self) -> Path:
        """The arm64 Python. Raises Missing where there is none."""
        return _newest(self.root / "usr" / "bin", "python3.[0-9]*")

    @property
    def emulator(self) -> Path:
        """qemu for programs of arm64. Raises Missing where there is none."""
        return _newest(self.folder / "host" / "usr" / "bin", "qemu-aarch64*")


def prepare(folder: Path) -> Sysroot:
    """Puts together what is not there yet. Raises Missing where this machine cannot."""
    _check_machine()
    sysroot = Sysroot(folder.resolve())
    folder = sysroot.folder
    own = _run("dpkg", "--print-architecture").strip()
    _once(folder / "host", "qemu-user-static", lambda at: _unpack(at, own, ["qemu-user-static"]))
    _once(sysroot.root, " ".join(OF_PYTHON), lambda at: _unpack(at, "arm64", OF_PYTHON))
    version = sysroot.python.name.removeprefix("python")
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *OF_TESTS]
    _once(sysroot.site, f"{version} {needs}", lambda at: _install(at, version, needs))
    return sysroot


def _check_machine() -> None:
    if not sys.platform.startswith("linux"):
        raise Missing("qemu emulates programs of Linux, on Linux only")
    for program in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Missing(f"there is no {program} here, and arm64's Python comes from Debian")


def _once(folder: Path, content: str, fill: Callable[[Path], None]) -> None:
    """Fills a folder anew unless it was filled with the same content; one that was interrupted is
    not taken for whole."""
    stamp = folder.with_name(f"{folder.name}.content")
    if stamp.is_file() and stamp.read_text() == content:
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"filling {folder} ...", flush=True)
    fill(folder)
    stamp.write_text(content)


def _unpack(folder: Path, architecture: str, packages: list[str] | tuple[str, ...]) -> None:
    """Packages of an architecture with all that they depend on. apt's state is a folder of its own,
    in which nothing is installed yet."""
    state = folder.with_name(f"{folder.name}.apt")
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": architecture, "APT::Architectures": architecture,
        "APT::Install-Recommends": "0", "APT::Sandbox::User": "", "Debug::NoLocking": "1",
        "Dir::State": state, "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status", "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
    }  # fmt: skip
    apt = ["apt-get", *(f"-o{key}={value}" for key, value in options.items())]
    _run(*apt, "update")
    _run(*apt, "install", "--download-only", "--yes", *packages)
    for package in sorted((state / "archives").glob("*.deb")):
        _run("dpkg-deb", "--extract", str(package), str(folder))
    shutil.rmtree(state)


def _install(folder: Path, version: str, needs: list[str]) -> None:
    """Wheels for arm64's Python of this version, with all that they depend on."""
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in GLIBC]
    _run(
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--only-binary=:all:", "--implementation=cp", f"--python-version={version}",
        "--platform=manylinux2014_aarch64", *platforms, "--target", str(folder), *needs,
    )  # fmt: skip


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Missing(
            f"{command[0]} took longer than {LIMIT_S:.0f} s: {' '.join(command)}"
        ) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise Missing(f"{command[0]} failed ({last[0]}): {' '.join(command)}")
    return done.stdout


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(path for path in folder.glob(pattern) if "_be" not in path.name)
    if not found:
        raise Missing(f"{folder} has no {pattern}, though its package was unpacked there")
    return found[-1]
