"""What the header of an object says of its content, read before any money is spent on it.

The way of an object: :mod:`checks` asks :mod:`ranged_reading` for its header; that fetches a few ranges of it and lets a
process apart (:mod:`parsers`, :mod:`parser_process`) make sense of them by :mod:`parsing`, which is a function of the
bytes alone: it says what it found, or which bytes it needs as well.
"""
