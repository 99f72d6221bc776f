"""What is kept of the points between runs of ``make test-crash``: those that passed, and the report for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_CODE = ("include", "plugins", "dags", "tests/crash", "requirements-demo.txt")
_COUNTED = {".py", ".yaml", ".txt"}


@dataclass(frozen=True)
class PointResult:
    """What came of a point."""

    name: str
    passed: bool
    charges: int = 0
    """Charges of the run; as many as there are request ids where all is well."""
    seconds: float = 0.0
    """From the kill to the end of the run."""
    retries: int = 0
    """Tries of task instances beyond the first."""
    problem: str = ""
    """The first line of what went wrong."""

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"{self.name}: {self.charges} charges, the run ended {self.seconds:.0f} s after the kill, "
            f"{self.retries} retries" + (f"; FAILED: {self.problem}" if not self.passed else "")
        )


class Record:
    """The results of all points for one state of the code; results for another state are forgotten.

    :param directory: holds ``points.json`` and ``report.md``; created when the first result is kept.
    :param code: names the state of the code.
    """

    def __init__(self, directory: Path, code: str) -> None:
        self.report_path = directory / "report.md"
        self._path = directory / "points.json"
        self._code = code

    @property
    def results(self) -> dict[str, PointResult]:
        """Return the last result of each point for this code, by name."""
        try:
            kept = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        if kept["code"] != self._code:
            return {}
        return {one["name"]: PointResult(**one) for one in kept["results"]}

    @property
    def passed(self) -> set[str]:
        """Return the names of the points that have passed for this code."""
        return {name for name, result in self.results.items() if result.passed}

    def keep(self, result: PointResult) -> None:
        """Keep a result, and write the report anew."""
        results = {**self.results, result.name: result}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        kept = {"code": self._code, "results": [asdict(one) for one in results.values()]}
        part.write_text(json.dumps(kept, indent=1) + "\n")
        part.replace(self._path)
        self.report_path.write_text(as_markdown(results.values()))


def as_markdown(results: Iterable[PointResult]) -> str:
    """Return the results as a table, the failed ones first."""
    ordered = sorted(results, key=lambda one: (one.passed, one.name))
    failed = sum(not one.passed for one in ordered)
    return "\n".join(
        [
            f"{len(ordered)} kill points, {failed} failed.",
            "",
            "| kill point | charges | seconds until the run ended | retries | |",
            "|---|---|---|---|---|",
            *(
                f"| {one.name} | {one.charges} | {one.seconds:.0f} | {one.retries} | "
                f"{'' if one.passed else one.problem.replace('|', '/')} |"
                for one in ordered
            ),
            "",
        ]
    )


def record_of_this_code() -> Record:
    """Return the record of the code as it stands in this folder, below ``.local``."""
    return Record(ROOT / ".local" / "crash", code_digest(ROOT))


def code_digest(root: Path) -> str:
    """Return what names the state of the code that a point tests, committed or not."""
    digest = hashlib.sha256()
    for place in _CODE:
        path = root / place
        files = [path] if path.is_file() else (one for one in path.rglob("*") if one.suffix in _COUNTED)
        for file in sorted(files):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
