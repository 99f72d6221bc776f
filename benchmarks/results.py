"""What benchmarks leave behind: ``results.json`` for programs, and the same as a Markdown table for people.

    .venv/bin/python benchmarks/results.py

prints the table of what was measured last.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure, with what it is measured against."""

    name: str
    """Says what was measured; a later result of this name replaces it."""
    value: float
    unit: str
    target: str
    """What is to be reached, for people: ``at least 0.98``."""
    met: bool
    baseline: str
    """What it is compared with, and that one's figure of the same run."""
    limit: str
    """What bounds it, and how far that would allow to go."""
    command: str
    """What measures it again."""
    conditions: str = ""
    """Cores, what was real and what was simulated."""

    @classmethod
    def at_least(cls, bound: float, *, value: float, **others: str) -> Result:
        """Return a result that is met by this value or a higher one."""
        return cls(value=round(value, 4), target=f"at least {bound:g}", met=value >= bound, **others)

    @classmethod
    def at_most(cls, bound: float, *, value: float, **others: str) -> Result:
        """Return a result that is met by this value or a lower one."""
        return cls(value=round(value, 4), target=f"at most {bound:g}", met=value <= bound, **others)


def machine() -> str:
    """Return what the figures were measured on."""
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"


def record(*results: Result) -> None:
    """Keep results beside the earlier ones, each in the place of its last value, and print them."""
    by_name = {one.name: one for one in read()} | {one.name: one for one in results}
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps([asdict(one) for one in by_name.values()], indent=1, ensure_ascii=False) + "\n")
    part.replace(RESULTS)
    print(as_markdown(results))


def read() -> list[Result]:
    """Return what was measured last, by whatever benchmark."""
    return [Result(**one) for one in json.loads(RESULTS.read_text())] if RESULTS.exists() else []


def as_markdown(results: Iterable[Result]) -> str:
    """Return the results as a table."""
    lines = [
        f"| {one.name} | {one.value:g} {one.unit} | {one.target} | {'yes' if one.met else '**no**'} | {one.baseline} "
        f"| {one.limit} | `{one.command}` |"
        for one in results
    ]
    return "\n".join(
        ["| what | value | target | met | baseline | limit | command |", "|---|---|---|---|---|---|---|", *lines]
    )


if __name__ == "__main__":
    print(as_markdown(read()))
