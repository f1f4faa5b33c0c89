"""The Celery workers: one process a GPU (or CPU slot), one phase each, one job at a time.

``app.py`` prepares the process, ``attempt.py`` is the frame around every task, and ``encode.py``,
``dit.py`` and ``vae.py`` are the work. Started by ``ddit worker``; nothing imports this package.
"""
