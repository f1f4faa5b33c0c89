"""Embedded mode: Postgres, Valkey, the scheduler and the workers as child processes of ours.

No Docker, no root, no system service; everything lives in one home folder. ``home`` says where,
``plan`` what is to run, ``process`` how one process lives and dies, ``postgres`` and ``valkey`` are
the two services, ``supervisor`` keeps all of them up, and ``cluster`` is what the commands call.
Nothing here knows of jobs, of Celery or of torch. A deployment uses none of it.
"""
