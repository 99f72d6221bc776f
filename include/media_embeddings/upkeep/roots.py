"""Which tables are kept: every root once, however many libraries write below it. Light, for the DAG's parsing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from media_embeddings.library import Library


@dataclass(frozen=True, slots=True)
class TableRoot:
    """A place of tables with the libraries that write there; where these want different retentions, the longest holds."""

    tables: str
    libraries: tuple[Library, ...]

    @property
    def name(self) -> str:
        """Return the name of the first of its libraries."""
        return self.libraries[0].name

    @property
    def first(self) -> Library:
        """Return the library whose connection reaches the tables, and whose work prefix takes the reports."""
        return self.libraries[0]

    @property
    def vacuum_retention_days(self) -> int:
        """Return how long versions can be read."""
        return max(one.vacuum_retention_days for one in self.libraries)

    @property
    def intents_retention_days(self) -> int | None:
        """Return how long intents are kept; None for ever."""
        return longest([one.intents_retention_days for one in self.libraries])

    @property
    def outputs(self) -> dict[str, tuple[Library, int | None]]:
        """Return each work prefix with a library that reaches it, and how long outputs are kept there."""
        by_work: dict[str, list[Library]] = {}
        for one in self.libraries:
            by_work.setdefault(one.work.rstrip("/"), []).append(one)
        return {
            work: (several[0], longest([one.outputs_retention_days for one in several]))
            for work, several in by_work.items()
        }


def table_roots(libraries: Iterable[Library]) -> tuple[TableRoot, ...]:
    """Return the roots of some libraries, in their order."""
    by_root: dict[str, list[Library]] = {}
    for library in libraries:
        by_root.setdefault(library.tables.rstrip("/"), []).append(library)
    return tuple(TableRoot(tables, tuple(several)) for tables, several in by_root.items())


def longest(days: Sequence[int | None]) -> int | None:
    """Return the longest of several retentions; None is for ever."""
    known = [one for one in days if one is not None]
    return max(known) if len(known) == len(days) else None
