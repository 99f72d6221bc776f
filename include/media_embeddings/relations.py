"""Compares tables that need not fit into memory: by SQL, over local Parquet files, in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa

Relation: TypeAlias = pa.Table | Path
"""Rows in memory, or a local Parquet file of them."""

_MEMORY = "384MB"
"""What a comparison may hold in memory; the rest is put on disk meanwhile."""
_MOST_THREADS = 4


@contextmanager
def database(**relations: Relation) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database that has the relations under their names."""
    with (
        tempfile.TemporaryDirectory() as directory,
        duckdb.connect(
            config={
                "memory_limit": _MEMORY,
                # Each has buffers of its own.
                "threads": min(_MOST_THREADS, os.cpu_count() or 1),
                "temp_directory": directory,
                "preserve_insertion_order": False,
            }
        ) as connection,
    ):
        # A progress bar would be drawn into the task's log.
        connection.execute("SET enable_progress_bar = false")
        for name, relation in relations.items():
            if isinstance(relation, Path):
                connection.read_parquet(str(relation)).create_view(name)
            else:
                connection.register(name, relation)
        yield connection
