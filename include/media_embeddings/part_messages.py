"""What a merge and the processes that parse for it give each other: messages, and what lies in the memory that both have."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from media_embeddings.output_rows import OutputPart, PartRows
from media_embeddings.reasons import Reason

TEXT_BYTES = 4 * 1024**2
# A number takes two bytes of text at least, and four as float32.
MEMORY_BYTES = TEXT_BYTES + 2 * TEXT_BYTES


@dataclass(frozen=True, slots=True)
class Request:
    """Parse the text that lies at the beginning of the memory."""

    text_bytes: int
    part: OutputPart


@dataclass(frozen=True, slots=True)
class Answer:
    """What a text holds; exactly one of these is there."""

    rows: PartRows | None = None
    """Without its vectors, which lie behind the text's place in the memory."""
    refused: Reason | None = None
    no_part: str | None = None


def vectors_in(memory: mmap.mmap, rows: int, dimension: int) -> NDArray[np.float32]:
    """Return the place of a text's vectors in the memory, in shape (rows, dimension)."""
    return np.frombuffer(memory, np.float32, rows * dimension, offset=TEXT_BYTES).reshape(rows, dimension)
