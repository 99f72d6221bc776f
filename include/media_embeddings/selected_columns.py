"""What :class:`~media_embeddings.library.Selection` says of keys, for whole columns of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from media_embeddings.library import Selection, suffix_of
from media_embeddings.media import MediaType


@dataclass(frozen=True, slots=True)
class ColumnSelection:
    """Tells media types, and what is taken, of the keys below a prefix.

    :param base: what the keys begin with and the globs don't; a key of another beginning is taken relative to nothing.
    :param wanted: the media types that are taken; None for all of them.
    """

    selection: Selection
    base: str
    wanted: Collection[MediaType] | None = None

    def media_types(self, keys: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the media type that each key's suffix tells, or null."""
        return _by_suffix(keys, self.selection.media_type_of_suffix, pa.string())

    def taken(self, keys: pa.ChunkedArray, media_types: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return which keys the library takes, exactly as :meth:`Selection.takes` does one by one."""
        if self.wanted is not None:
            wanted = pc.is_in(media_types, value_set=pa.array([str(name) for name in self.wanted], pa.string()))
        else:
            wanted = pa.chunked_array([pa.repeat(True, len(keys))])
        relative = pc.utf8_ltrim(_without_prefix(keys, self.base), "/")
        refused = pc.or_(
            pc.or_(pc.equal(relative, ""), pc.ends_with(relative, "/")),
            _by_suffix(relative, self.selection.is_disabled, pa.bool_()),
        )
        taken = pc.and_(wanted, pc.invert(refused))
        if not self.selection.has_globs:
            return taken
        by_globs = [self.selection.globs_take(key) for key in relative.filter(taken).to_pylist()]
        return pc.replace_with_mask(taken.combine_chunks(), taken.combine_chunks(), pa.array(by_globs, pa.bool_()))


def _without_prefix(keys: pa.ChunkedArray, prefix: str) -> pa.ChunkedArray:
    if not prefix:
        return keys
    return pc.if_else(pc.starts_with(keys, prefix), pc.utf8_slice_codeunits(keys, len(prefix)), keys)


def _by_suffix(keys: pa.ChunkedArray, tell: Callable[[str], object], kind: pa.DataType) -> pa.ChunkedArray:
    """Return what is told of each key's suffix; asked once for each suffix that there is."""
    # The last dot and what follows it, as `suffix_of` finds them: in lower case only where it makes them so.
    found = pc.fill_null(pc.struct_field(pc.extract_regex(keys, r"(?P<suffix>[^/]\.[^./]+)$"), "suffix"), "")
    parts = [
        pa.array([tell(suffix_of(each)) for each in part.dictionary.to_pylist()], kind).take(part.indices)
        for part in found.dictionary_encode().chunks
    ]
    return pa.chunked_array(parts, kind)
