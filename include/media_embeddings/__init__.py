"""Media of S3 buckets to embedding tables: the domain in plain Python, without Airflow.

In the order in which data meets them: :mod:`configuration` and :mod:`library` (what is wanted), :mod:`listing` (what
is there), :mod:`planning` (what is to be done), :mod:`models` (how a model is asked, and what it answers),
:mod:`batch_outputs` and :mod:`results` (what came back), :mod:`merging` (into the tables), :mod:`tables` and
:mod:`schemas` (what is written), :mod:`reporting` (the balanced books). :mod:`storage` and :mod:`run_folder` say where the
files between them lie.
"""
