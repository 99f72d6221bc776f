"""One query over the tables of several libraries, whatever regions they lie in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError

from media_embeddings.library import Library
from media_embeddings.media import MediaType
from media_embeddings.models import model_named, model_names
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.search.access import Access, AccessOf, as_configured
from media_embeddings.search.comparable import (
    common_model,
    refuse_other_rows,
    refuse_other_tables,
    refuse_other_vector,
)
from media_embeddings.search.cosine import Vectors, unit
from media_embeddings.search.queries import (
    ImageQuery,
    LikeQuery,
    Narrowing,
    Query,
    SearchRefusedError,
    StoredImageQuery,
    TextQuery,
    VectorQuery,
)
from media_embeddings.search.query_vectors import serving, vector_of_image, vector_of_text, vectors_like
from media_embeddings.search.scanning import SearchedTable, nearest, reading, rows_of
from media_embeddings.storage import ObjectNotFoundError, ObjectUnreadableError
from media_embeddings.tables import Tables

MOST_HITS = 10_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A segment that is near the query, with what the table says of it."""

    score: float
    """The cosine, from -1 to 1."""
    library: str
    region: str
    media_uri: str
    media_type: str
    segment_index: int
    start_sec: float | None
    """Null for images and texts, as ``end_sec``; texts have ``start_char`` and ``end_char``."""
    end_sec: float | None
    start_char: int | None
    end_char: int | None
    embedding_option: str | None
    embedding_scope: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a query."""

    model: str
    hits: tuple[Hit, ...]
    """The nearest first."""
    compared: Mapping[str, int]
    """How many segments were compared with the query, by library; 0 also where a library has no table yet."""


def search(
    libraries: Sequence[Library],
    query: Query,
    *,
    model: str | None = None,
    top: int = 10,
    media_types: Collection[MediaType] | None = None,
    options: Collection[str] | None = None,
    scope: str | None = None,
    access_of: AccessOf | None = None,
) -> Found:
    """Return the segments nearest to a query by cosine: exactly, every vector of the tables is looked at.

    Segments that are equally near come in the order of URI and segment.

    :param libraries: at least one; each is reached in its own region.
    :param model: whose tables are searched; None for the one that all libraries are searched with.
    :param top: at most so many hits, 1 to 10,000.
    :param media_types: only segments of these.
    :param options: only segments with one of these embedding options.
    :param scope: only ``clip`` or only ``asset`` segments.
    :param access_of: how a library is reached; None for what the AWS SDKs find in the environment.
    :raises SearchRefusedError: where the query can't be answered as it stands; as
        :class:`~media_embeddings.search.comparable.CrossModelError` where vectors of two models would be compared.
    :raises QueryVectorError: where Bedrock gives no vector for the query.
    :raises TableUnreachableError: where a library's table can't be read.
    """
    if not libraries:
        raise SearchRefusedError("name at least one library to search")
    if not 1 <= top <= MOST_HITS:
        raise SearchRefusedError(f"top must be from 1 to {MOST_HITS:,} (found {top})")
    searched = model_named(common_model(libraries, model))
    narrowing = Narrowing(
        None if media_types is None else frozenset(media_types),
        None if options is None else frozenset(options),
        scope,
    )
    _refuse_narrowing(narrowing, searched)
    if isinstance(query, VectorQuery):
        refuse_other_vector(query, searched.name)
    reached = _Reached(libraries, access_of or as_configured(), searched)
    tables = reached.tables()
    queries = reached.vectors(query)
    but = (query.media_uri, query.segment_index) if isinstance(query, LikeQuery) else None
    candidates, compared = nearest(tables, queries, narrowing, top, but)
    hits = []
    for candidate, row in zip(candidates, rows_of(tables, candidates), strict=True):
        library = tables[candidate.table].library_of(candidate.media_uri)
        hits.append(Hit(candidate.score, library.name, library.region, **row))
    return Found(searched.name, tuple(hits), {library.name: compared.get(library.name, 0) for library in libraries})


def _refuse_narrowing(narrowing: Narrowing, model: EmbeddingModel) -> None:
    unknown = (narrowing.options or frozenset()) - model.embedding_options
    if unknown:
        raise SearchRefusedError(
            f"{model.name} has no embedding option {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(model.embedding_options))}"
        )
    if narrowing.scope not in (None, "clip", "asset"):
        raise SearchRefusedError(f"the scope is clip or asset (found {narrowing.scope!r})")


class _Reached:
    """The libraries of a search, each with what reaches it."""

    def __init__(self, libraries: Sequence[Library], access_of: AccessOf, model: EmbeddingModel) -> None:
        self._libraries, self._model = libraries, model
        self._access: dict[str, Access] = {library.name: access_of(library) for library in libraries}

    def tables(self) -> tuple[SearchedTable, ...]:
        """Return the tables of the libraries that have one, each at the version that is its newest now.

        :raises CrossModelError: if a library has a table of another model only.
        """
        roots: dict[str, list[Library]] = {}
        for library in self._libraries:
            roots.setdefault(library.tables.rstrip("/"), []).append(library)
        found: list[SearchedTable] = []
        absent: dict[str, list[str]] = {}
        for sharing in roots.values():
            with reading(sharing):
                opened = self._tables(sharing[0]).embedding_files(self._model.name, self._model.dimension)
                if opened is None:
                    absent |= {library.name: self._models_there(sharing[0]) for library in sharing}
            if opened is not None:
                found.append(SearchedTable(tuple(sharing), *opened))
        refuse_other_tables(absent, self._model.name)
        return tuple(found)

    def vectors(self, query: Query) -> Vectors:
        """Return the vectors of a query, of unit length; several where the nearest of them counts."""
        if isinstance(query, VectorQuery):
            return self._given(query)
        if isinstance(query, LikeQuery):
            return self._like(query)
        library, model_id = serving(self._libraries, self._model)
        if isinstance(query, TextQuery):
            return vector_of_text(self._access[library.name].bedrock(), self._model, model_id, query.text)
        content = query.content if isinstance(query, ImageQuery) else self._stored(query)
        return vector_of_image(self._access[library.name].bedrock(), self._model, model_id, content)

    def _given(self, query: VectorQuery) -> Vectors:
        try:
            return unit(np.asarray([query.vector], dtype=np.float64))
        except ValueError as error:
            raise SearchRefusedError(str(error)) from error

    def _like(self, query: LikeQuery) -> Vectors:
        columns = ("segment_index", "embedding_scope", "embedding")
        for library in self._libraries:
            with reading([library]):
                rows = self._tables(library).read_embeddings(self._model.name, [query.media_uri], columns)
            if rows.num_rows:
                return vectors_like(query, rows)
        others = [
            name
            for name in model_names()
            if name != self._model.name and any(self._has_rows(library, name, query) for library in self._libraries)
        ]
        refuse_other_rows(query.media_uri, others, self._model.name)
        names = ", ".join(library.name for library in self._libraries)
        raise SearchRefusedError(
            f"{query.media_uri} has no vector in the table of {names}; the ledger says why, if it was listed: "
            f"python -m media_embeddings failed --library {self._libraries[0].name}"
        )

    def _has_rows(self, library: Library, model_name: str, query: LikeQuery) -> bool:
        with reading([library]):
            return bool(
                self._tables(library).read_embeddings(model_name, [query.media_uri], ["segment_index"]).num_rows
            )

    def _stored(self, query: StoredImageQuery) -> bytes:
        most = self._model.limits.size_bytes.get(MediaType.IMAGE)
        try:
            image = self._access[self._libraries[0].name].storage.open(query.uri)
            content = None if most is not None and image.size_bytes > most else image.body.read()
            image.close()
        except ObjectNotFoundError as error:
            raise SearchRefusedError(f"there is no image {query.uri} to search by") from error
        except (ObjectUnreadableError, BotoCoreError, ClientError, ValueError) as error:
            raise SearchRefusedError(f"the image {query.uri} to search by can't be read: {error}") from error
        if content is None:
            raise SearchRefusedError(
                f"{query.uri} has {image.size_bytes:,} bytes, and {self._model.name} takes images of {most:,}: scale it down"
            )
        return content

    def _models_there(self, library: Library) -> list[str]:
        tables = self._tables(library)
        return [name for name in model_names() if tables.embedding_files(name, model_named(name).dimension) is not None]

    def _tables(self, library: Library) -> Tables:
        return Tables(library.tables, self._access[library.name].storage.table_options)
