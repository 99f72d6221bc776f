"""How the files of a table are laid out: columns, partitions, order, encodings."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import uuid4

import pyarrow as pa

FILE_BYTES = 128 * 1024**2
"""How much a file holds at most, as Arrow has it in memory; more only if one object has more."""
ROW_GROUP_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Layout:
    """How a table is laid out: its columns, its partitions, and how the rows of a file are sorted."""

    schema: pa.Schema
    partitions: tuple[str, ...]
    sort: tuple[str, ...]

    @cached_property
    def stored(self) -> pa.Schema:
        """The columns that are in the files; those of the partitions stand in the log."""
        return pa.schema(
            [field for field in self.schema if field.name not in self.partitions], metadata=self.schema.metadata
        )

    @property
    def configuration(self) -> dict[str, str]:
        """Return the table properties that a new table gets."""
        return {
            "delta.dataSkippingStatsColumns": ",".join(self.sort),
            # Commit ids are remembered for as long as a task may still be cleared and repeat its commit.
            "delta.setTransactionRetentionDuration": "interval 90 days",
        }

    @property
    def parquet_options(self) -> dict[str, Any]:
        """Return how the columns are encoded, as arguments of pyarrow's Parquet writer."""
        return {
            "compression": "zstd",
            "compression_level": 1,
            # Vectors are split by byte position, so that zstd finds something to compress.
            "use_dictionary": False,
            "column_encoding": {
                name: encoding for field in self.stored if (encoding := _encoding(field)) for name in [_leaf(field)]
            },
            "write_statistics": [field.name for field in self.stored if not pa.types.is_list(field.type)],
        }

    def new_path(self, partition: Mapping[str, str]) -> str:
        """Return the path of a new file of a partition, relative to the table."""
        # Readers take the values from the log, so that the folders' names can do without what would have to be escaped.
        folders = [f"{name}={re.sub(r'[^A-Za-z0-9._-]', '_', value)}" for name, value in partition.items()]
        return "/".join([*folders, f"part-{uuid4()}.zstd.parquet"])


def rows_within(rows: pa.Table, most_bytes: int) -> int:
    """Return how many rows of this kind take up so many bytes; at least one."""
    bytes_a_row = max(1, rows.nbytes) / max(1, rows.num_rows)
    return max(1, int(most_bytes / bytes_a_row))


def now() -> int:
    """Return the time as the log has it: milliseconds since 1970."""
    return int(time.time() * 1000)


def _encoding(field: pa.Field) -> str | None:
    if pa.types.is_list(field.type):
        return "BYTE_STREAM_SPLIT"
    return "DELTA_BYTE_ARRAY" if pa.types.is_string(field.type) else None


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)
