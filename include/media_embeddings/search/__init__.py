"""Exact search: the segments of one or several libraries whose vectors are nearest to a query, by cosine.

In the order in which a query meets them: :mod:`queries` (what is asked), :mod:`comparable` (which tables may be compared
with it), :mod:`query_vectors` (its vector, from Bedrock or a table), :mod:`scanning` (every vector of the tables, in
bounded memory), :mod:`cosine` and :mod:`ranking` (how near it is, and the best of all), :mod:`searching` (the whole).
:mod:`access` says how each library's region is reached, :mod:`command` is the command line.
"""
