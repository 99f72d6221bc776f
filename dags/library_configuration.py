"""Holds no DAG: shows what is wrong in the libraries' configuration as an import error in the Airflow UI.

It stands in a file of its own since Airflow schedules no DAG of a file that has an import error: here the error is
loud, and the libraries that are right go on running every night.
"""

from __future__ import annotations

from media_embeddings.configuration import load_configuration


class InvalidLibrariesError(Exception):
    """At least one library has no DAG."""


if errors := load_configuration().errors:
    raise InvalidLibrariesError(
        "these libraries have no DAG until their settings are corrected:\n" + "\n".join(str(error) for error in errors)
    )
