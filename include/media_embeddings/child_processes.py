"""Processes that run a module of this package and nothing else: how they are started and ended."""

from __future__ import annotations

import os
import subprocess
import sys

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


def command_of(module: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    # Nothing is imported from the folder that the task happens to run in.
    return [sys.executable, "-P", "-m", module]


def bare_environment() -> dict[str, str]:
    """Return an environment that has Python alone, without the credentials that this one may hold."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


def end(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait so long for a process's end, then end it; return its status."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
