"""SP groups: workers that denoise one job together, formed and changed while they run.

Rule 1: no broker, Celery or SQL here. How the members of a group find each other is the ``Store``
that the caller brings.
Rule 2: there is no global world. Every process has a default group of size one, and each SP group
is a process group of its own, so that a dead member breaks only the groups that it was in.

Where to read next: ``group.py`` (the noun), ``following.py`` (what leader and followers say to
each other), ``transfer.py`` (how a newcomer gets the state), ``backend.py`` (how a transformer is
told to split its sequence), ``torch_private.py`` (all of torch here that is not promised to stay).
"""
