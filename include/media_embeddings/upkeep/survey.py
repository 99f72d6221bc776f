"""What a table consists of, before and after upkeep."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from media_embeddings.upkeep.kept_tables import KeptTable


@dataclass(frozen=True, slots=True)
class TableFigures:
    """A table in numbers. Files of the table are those that its latest version names."""

    version: int
    rows: int
    files: int
    bytes: int
    smallest_bytes: int
    median_bytes: int
    stored_files: int
    """Files in its folder, also those that no version names, without the log."""
    stored_bytes: int
    log_files: int
    log_bytes: int


def survey(table: KeptTable) -> TableFigures | None:
    """Return a table in numbers; None where there is none."""
    opened = table.open()
    if opened is None:
        return None
    files = table.counted(opened)
    sizes = [one.file.size_bytes for one in files]
    stored = table.stored()
    log = [one.size_bytes for one in stored if one.is_log]
    data = [one.size_bytes for one in stored if not one.is_log]
    return TableFigures(
        version=opened.version(),
        rows=sum(one.rows for one in files),
        files=len(files),
        bytes=sum(sizes),
        smallest_bytes=min(sizes, default=0),
        median_bytes=int(median(sizes)) if sizes else 0,
        stored_files=len(data),
        stored_bytes=sum(data),
        log_files=len(log),
        log_bytes=sum(log),
    )
