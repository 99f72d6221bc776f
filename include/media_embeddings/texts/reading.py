"""Reads the text of an object out of its bytes, in the way that its suffix asks for. Pure."""

from __future__ import annotations

from media_embeddings.reasons import ReasonCode
from media_embeddings.texts.object_text import ObjectText, UnreadableTextError
from media_embeddings.texts.subtitles import subrip, webvtt
from media_embeddings.texts.suffixes import TABLE_SUFFIXES
from media_embeddings.texts.tables import comma_separated, json_lines

__all__ = ["UnreadableTextError", "read_text", "text_of"]


def text_of(content: bytes, suffix: str, column: str | None = None) -> str:
    """Return the text of an object, which ``start_char`` and ``end_char`` of the embeddings tables are places in.

    :param suffix: of the object's key, for example ``.srt``.
    :param column: the library's ``text_column``, for ``.jsonl`` and ``.csv``.
    :raises UnreadableTextError: where the content is not what the suffix says.
    """
    return read_text(content, suffix, column).text


def read_text(content: bytes, suffix: str, column: str | None = None) -> ObjectText:
    """Return the text of an object and what belongs together in it; parameters and errors as :func:`text_of`.

    :raises UnreadableTextError: also where there is nothing but white space in it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableTextError(f"the text is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    found = _read(text, suffix.lower(), column)
    if not found.text.strip():
        message = "the text has no characters but white space"
        raise UnreadableTextError(message, ReasonCode.EMPTY_OBJECT)
    return found


def _read(text: str, suffix: str, column: str | None) -> ObjectText:
    if not text.strip():
        return ObjectText(text)
    match suffix:
        case ".srt":
            return subrip(text)
        case ".vtt":
            return webvtt(text)
        case ".jsonl" | ".csv" if column is None:
            raise ValueError(f"of {' and '.join(TABLE_SUFFIXES)} one column is read; name it (text_column)")
        case ".jsonl":
            return json_lines(text, column or "")
        case ".csv":
            return comma_separated(text, column or "")
        case _:
            return ObjectText(text)
