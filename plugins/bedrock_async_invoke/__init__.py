"""Amazon Bedrock's asynchronous invocations for Airflow: hook, operator, sensor, triggers and link.

What to do next is decided by pure classes, :mod:`submission` and :mod:`polling`, that are fed with observations. The calls
around them are made by :mod:`submitter` and :mod:`watcher`, with blocking clients, in a worker or in threads of the
triggerer. Two invariants hold throughout: a request is started under its own ``clientRequestToken`` and no other, and what
was started is written beside the manifest before a task ends.
"""
