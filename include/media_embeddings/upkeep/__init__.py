"""Upkeep of the tables and of what runs leave behind: compaction, check, expiry, vacuum, and a report of them.

Everything here may run beside merges. Files are only ever replaced by files with the same rows, in a commit that is refused
when a merge was faster; and nothing is deleted that a promise of ``docs/guarantees.md`` rests on.
"""
