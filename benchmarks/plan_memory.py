"""Peak memory and XCom size of listing, planning and reporting a library of many new objects.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/plan_memory.py 100000

The S3 server is real (SeaweedFS), but for the pages of the listing: the server of ``listing_server.py`` sends these, since
creating as many objects takes longer than everything else. Each step runs in a process of its own, as a task does.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.unchanged_library import LIBRARY, Measured, Servers, in_a_process, list_step, listing_server
from local_stack.stack import LocalStack
from media_embeddings.listing import Listing
from media_embeddings.planner import PlanOptions, make_plan
from media_embeddings.reporting import report_run
from media_embeddings.run_folder import RunFolder

RUN = "run"


def plan_step(servers: Servers, listing: dict[str, Any]) -> Any:
    plan, uri = make_plan(servers.storage, LIBRARY, RUN, Listing.from_dict(listing), PlanOptions())
    return {"manifests": list(plan.all_manifests), "plan_uri": uri}


def report_step(servers: Servers, listing: dict[str, Any], plan_uri: str) -> Any:
    folder = RunFolder(LIBRARY.work, LIBRARY.name, RUN)
    return report_run(servers.storage, LIBRARY, folder, listing, plan_uri).totals


def main(objects: int) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalStack(Path(directory)) as stack,
        listing_server(objects) as port,
    ):
        stack.seaweedfs.create_buckets("large-media", "large-vectors")
        servers = Servers(stack.environment, port)
        print("| step | seconds | peak MiB | XCom bytes |\n|---|---|---|---|")
        listing = show("list_media", in_a_process(list_step, servers, RUN))
        plan = show("plan", in_a_process(plan_step, servers, listing), xcom="manifests")
        show("report", in_a_process(report_step, servers, listing, plan["plan_uri"]))


def show(name: str, measured: Measured, *, xcom: str | None = None) -> Any:
    value = measured.value
    size = len(json.dumps(value[xcom] if xcom else value))
    print(f"| {name} | {measured.seconds:.1f} | {measured.peak_mebibytes:.0f} | {size} |", flush=True)
    return value


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
