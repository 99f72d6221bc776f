"""What an object costs in CPU and calls as a library grows: a first run over 1,000, 10,000 and 100,000 objects.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/growth.py [objects ...]

Each is a run of the DAG ``embed_media`` in a real Airflow with a real S3 server, as in ``slots.py``. The jobs of the simulated
Bedrock take no time and the window is as wide as a library's can be, so that the machine is what bounds the run. The last row
takes more than an hour on two cores.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks.results import Result, machine, record
from benchmarks.slots import Measured, Row, run

OBJECTS = (1_000, 10_000, 100_000)
WINDOW = 1_000
MOST = 1.3


def main() -> None:
    """Run the sizes that are named, or all; compare each with the one before it."""
    sizes = sorted(int(text) for text in sys.argv[1:]) or list(OBJECTS)
    measured: dict[int, Measured] = {}
    for objects in sizes:
        row = Row(f"{objects:,} objects", objects, WINDOW, 0.0, utilisation=None, other_calls=0.0)
        with tempfile.TemporaryDirectory(prefix="growth-") as directory:
            measured[objects] = run(row, Path(directory))
        print(row.name, measured[objects], flush=True)
    for smaller, larger in pairwise(sizes):
        compare(smaller, measured[smaller], larger, measured[larger])


def compare(smaller: int, before: Measured, larger: int, after: Measured) -> None:
    """Record how much more an object costs in the larger library."""
    calls = {size: (one.starts + one.other_calls) / size for size, one in ((smaller, before), (larger, after))}
    for what, unit, low, high in (
        ("CPU", "s", before.cpu_seconds / smaller, after.cpu_seconds / larger),
        ("Bedrock calls", "calls", calls[smaller], calls[larger]),
    ):
        record(
            Result.at_most(
                MOST,
                name=f"{what} an object, {larger:,} objects against {smaller:,}",
                value=high / low,
                unit="x",
                baseline=f"{smaller:,} objects: {low:.4g} {unit} each; {larger:,} objects: {high:.4g} {unit} each",
                limit="1: every object costs the same",
                command=f"PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/growth.py {smaller} {larger}",
                conditions=f"{machine()}; real Airflow and S3 server; Bedrock simulated, with jobs of no duration",
            )
        )


if __name__ == "__main__":
    main()
