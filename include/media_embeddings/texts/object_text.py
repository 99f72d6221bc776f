"""What is read out of a text object: its text, and which stretches of it belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from media_embeddings.reasons import Reason, ReasonCode


class UnreadableTextError(Exception):
    """An object is not the text that its suffix says; the reason says where and what to do."""

    def __init__(self, message: str, code: ReasonCode = ReasonCode.CORRUPT) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


class Form(StrEnum):
    """How the stretches of a text are made into parts."""

    PROSE = "prose"
    """One stretch, which is split where it has to be."""
    RECORDS = "records"
    """Each stretch is a part of its own, or several: the values of two records are never in one vector."""
    CUES = "cues"
    """Short neighbours are one part."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a text: a record's value, or what a cue shows, with its times."""

    start_char: int
    end_char: int
    start_sec: float | None = None
    end_sec: float | None = None


@dataclass(frozen=True, slots=True)
class ObjectText:
    """The text of an object. It is what ``start_char`` and ``end_char`` count in, wherever they stand."""

    text: str
    form: Form = Form.PROSE
    stretches: tuple[Stretch, ...] = ()
    """In the order of the text; of prose there are none."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A value of a record, or the words of a cue with its times."""

    text: str
    start_sec: float | None = None
    end_sec: float | None = None


def joined(pieces: Iterable[Piece], form: Form) -> ObjectText:
    """Return the text that pieces make, a line feed between them; those of white space only are left out."""
    texts, stretches, at = [], [], 0
    for piece in pieces:
        if not piece.text.strip():
            continue
        stretches.append(Stretch(at, at + len(piece.text), piece.start_sec, piece.end_sec))
        texts.append(piece.text)
        at += len(piece.text) + 1
    return ObjectText("\n".join(texts), form, tuple(stretches))
