"""By which suffix a text is read in which way."""

from __future__ import annotations

PLAIN_SUFFIXES = (".txt", ".md")
"""Read as they are, as is whatever else a library names as text."""
SUBTITLE_SUFFIXES = (".srt", ".vtt")
TABLE_SUFFIXES = (".jsonl", ".csv")
"""One column of them is read: which one, only the library can say."""
