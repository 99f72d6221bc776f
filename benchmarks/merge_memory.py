"""Peak memory of merging a batch of 200 MiB and one of 4 GiB of outputs.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/merge_memory.py [MiB ...]

The merge runs as its task does, each in a process of its own, whose largest resident size is taken, with those of the
processes that it parses with; the S3 server is real (SeaweedFS), the outputs are of one-hour videos (see ``made_batch.py``),
the batch's invocations never ran.
"""

from __future__ import annotations

import os
import sys
import tempfile

from benchmarks.made_batch import Server, in_a_process, make_batch, seaweedfs, upload_outputs
from benchmarks.merge import FORM, merge
from benchmarks.results import Result, machine, record

COMMAND = "PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/merge_memory.py"
MOST_MEBIBYTES = 700


def main(sizes: list[int]) -> None:
    """Measure each size, and keep the peaks."""
    with tempfile.TemporaryDirectory() as directory, seaweedfs(directory) as running:
        os.environ.update(running.environment)
        server = Server.of(running)
        upload_outputs(server.storage, FORM, max(sizes) * 1024**2)
        empty = in_a_process(server, merge, "memory-0", make_batch(server.storage, FORM, 0, "memory-0")).peak_mebibytes
        peaks: dict[int, float] = {}
        of_one = len(
            server.storage.read(f"s3://benchmark-vectors/work/outputs/{FORM.replace(' ', '-')}/00000/output.json")
        )
        for size in sizes:
            objects = -(-size * 1024**2 // of_one)
            folder = make_batch(server.storage, FORM, objects, f"memory-{size}")
            merged = in_a_process(server, merge, f"memory-{size}", folder)
            peaks[size] = merged.peak_mebibytes
            print(
                f"{size} MiB, {objects} outputs: {merged.peak_mebibytes:.0f} MiB in {merged.seconds:.1f} s", flush=True
            )
    record(
        *(
            Result.at_most(
                MOST_MEBIBYTES,
                name=f"merge: peak memory, batch of {size} MiB",
                value=peak,
                unit="MiB",
                baseline=", ".join(f"{peaks[other]:.0f} MiB for {other} MiB" for other in sizes if other != size),
                limit=f"a merge of an empty batch: {empty:.0f} MiB",
                command=COMMAND,
                conditions=f"{machine()}; largest resident sizes of the merge's process and of those that parse for it; "
                f"outputs of {of_one / 1024**2:.0f} MiB",
            )
            for size, peak in peaks.items()
        )
    )


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [200, 4096])
