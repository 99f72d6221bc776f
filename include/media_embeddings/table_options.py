"""The options under which ``deltalake`` reaches a store, as they are at the moment.

Credentials of a role are replaced every few hours or less. Who opens a table or a file asks for the options anew, so that a
task that takes longer than its first credentials goes on with the next ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

TableOptions = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""They hold credentials, so they must not reach a log."""


def current(options: TableOptions) -> dict[str, str]:
    """Return the options as they are now."""
    return dict(options() if callable(options) else options)
