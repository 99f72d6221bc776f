"""A client of the simulator's administration, for tests. Standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class SimulatorAdmin:
    """Steers a running simulator.

    :param url: its address, such as ``http://127.0.0.1:4321``.

    Methods raise :class:`ValueError` with the simulator's words if it refuses what it is told.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith("http://"):
            raise ValueError(f"A simulator's address starts with http://, not {url}.")
        self._url = f"{url.rstrip('/')}/simulator"

    def health(self) -> dict[str, Any]:
        """Return region, models and the number of jobs by status."""
        return self._call("GET", "/health")

    def settings(self, **changes: object) -> dict[str, Any]:
        """Change the named settings, if any, and return them all."""
        return self._call("PUT", "/settings", changes) if changes else self._call("GET", "/settings")

    def charges(self) -> list[dict[str, Any]]:
        """Return one charge for each accepted job and each InvokeModel, oldest first."""
        charges: list[dict[str, Any]] = self._call("GET", "/charges")["charges"]
        return charges

    def calls(self) -> dict[str, dict[str, int]]:
        """Return the number of calls by operation and error code (``""`` for a success)."""
        calls: dict[str, dict[str, int]] = self._call("GET", "/calls")["calls"]
        return calls

    def faults(self, *faults: dict[str, Any]) -> list[dict[str, Any]]:
        """Let these faults stand and no others, if any are given; return those that stand, with what they struck."""
        answer = self._call("PUT", "/faults", {"faults": list(faults)}) if faults else self._call("GET", "/faults")
        standing: list[dict[str, Any]] = answer["faults"]
        return standing

    def clear_faults(self) -> None:
        """Let no fault stand. Jobs keep the faults that they drew."""
        self._call("DELETE", "/faults")

    def advance_clock(self, seconds: float) -> None:
        """Put the simulator's clock forward."""
        self._call("PUT", "/clock", {"advance_seconds": seconds})

    def end_jobs(self) -> int:
        """Let every job that waits for its end be due now, however long it is stuck; return how many there were."""
        ended: int = self._call("POST", "/jobs/end")["ended"]
        return ended

    def _call(self, method: str, path: str, document: object = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  (http only)
            self._url + path,
            method=method,
            data=None if document is None else json.dumps(document).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  (http only)
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{method} {path}: {error.read().decode(errors='replace')}") from error
        return answer
