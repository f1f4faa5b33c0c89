"""Everything that speaks SQL. ORM rows never leave this package; values do.

``models.py`` is the schema, ``moves.py`` the one way in which a job changes state, and then one
store for each writer: ``submission.py`` (users), ``worker_store.py`` (workers),
``scheduler_store.py`` (the scheduler), ``status.py`` (readers, by way of ``reading.py``).
"""
