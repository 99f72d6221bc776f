"""The simulator as a whole: its parts, its settings, its start and its stop."""

from __future__ import annotations

from pathlib import Path

from .clock import Clock
from .faults import FaultBook
from .job_runner import JobRunner
from .job_store import JobStore
from .operations import Operations
from .settings import Settings
from .storage import Storage


class Simulator:
    """One region's Bedrock runtime.

    :param state_directory: where everything is kept that survives a restart.
    :param settings: the settings; None for those of the last run, or the defaults.
    :param workers: how many threads work the jobs.
    """

    def __init__(self, state_directory: Path, region: str, settings: Settings | None, workers: int) -> None:
        self.region = region
        self.store = JobStore(state_directory)
        saved = self.store.saved_document("settings")
        self._settings = settings or Settings().changed(saved or {})
        self.store.save_document("settings", self._settings.document())
        self.clock = Clock(self.store.saved_document("clock_offset_ms") or 0)
        self.faults = FaultBook(
            self.store.saved_document("faults"),
            lambda faults: self.store.save_document("faults", faults),
            self.clock.now_ms,
        )
        storage = Storage(region)
        self.runner = JobRunner(self.store, storage, self.clock, self.settings, region, workers)
        self.operations = Operations(region, self.settings, self.store, storage, self.clock, self.faults, self.runner)

    def settings(self) -> Settings:
        """Return the settings as they are now."""
        return self._settings

    def change_settings(self, changes: object) -> Settings:
        """Replace some settings and keep them for the next start.

        :raises ValueError: if one is unknown or not valid.
        """
        self._settings = self._settings.changed(changes)
        self.store.save_document("settings", self._settings.document())
        return self._settings

    def advance_clock(self, seconds: float) -> int:
        """Put the clock forward, and return the present moment in milliseconds."""
        self.clock.advance(round(1000 * seconds))
        self.store.save_document("clock_offset_ms", self.clock.offset_ms)
        self.runner.clock_changed()
        return self.clock.now_ms()

    def start(self) -> None:
        """Begin, or go on with the jobs that are in progress."""
        self.runner.start()

    def stop(self) -> None:
        """Finish what is at work, and close."""
        self.runner.stop()
        self.store.close()
