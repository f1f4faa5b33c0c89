"""The three phases of a job as plain functions on tensors: the only place with torch.

Rule 1: no Celery, SQL, broker, policy or artifact store here. Values and bytes come in, values and
bytes go out; ``workers/`` carries them.
Rule 2: nothing is global. Which device, model, group or request is meant is an argument.

Where to read next: ``models/base.py`` (the nouns), ``encode.py``, ``dit.py`` and ``vae.py`` (the
phases), ``handoff.py`` and ``checkpoint.py`` (what travels between processes), ``mp4.py``.
"""
