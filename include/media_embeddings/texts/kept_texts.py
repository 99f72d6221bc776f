"""Keeps the texts of a plan on the local disk from when they are read until their requests are written."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

_FASTEST = 1


class KeptTexts:
    """Texts by request id: a night's first plan may read a million of them, and memory is to hold a few.

    A context manager; the file is the caller's to remove.
    """

    def __init__(self, path: Path) -> None:
        # Nothing of it is needed after a crash: the plan is made anew.
        self._connection = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -32768"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.execute("CREATE TABLE texts (request_id TEXT PRIMARY KEY, content BLOB)")
        self._connection.execute("BEGIN")

    def keep(self, request_id: str, text: str) -> None:
        """Keep the text of an object."""
        content = zlib.compress(text.encode(), _FASTEST)
        self._connection.execute("INSERT OR REPLACE INTO texts VALUES (?, ?)", (request_id, content))

    def text(self, request_id: str) -> str:
        """Return a text that was kept.

        :raises KeyError: where none was.
        """
        found = self._connection.execute("SELECT content FROM texts WHERE request_id = ?", (request_id,)).fetchone()
        if found is None:
            raise KeyError(request_id)
        return zlib.decompress(found[0]).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()
