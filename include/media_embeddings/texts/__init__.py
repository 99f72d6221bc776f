"""Texts: what the text of an object is, how long it is to a model, and how a long one is cut into parts.

``text_of`` gives the text that ``start_char`` and ``end_char`` of the embeddings tables count in.
"""

from __future__ import annotations

from media_embeddings.texts.reading import UnreadableTextError, text_of

__all__ = ["UnreadableTextError", "text_of"]
