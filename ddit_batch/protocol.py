"""What the processes of a cluster must agree on to understand each other.

The schema has a version of its own (``db/schema_version.py``). This is about all that is no row:
Celery messages, letters, calls, and what a plan means to those who carry it out. Whatever is sent
carries the number, and who speaks another one leaves it alone: the scheduler sends it again to
somebody else. A worker says its number when it registers, and gets no work if it is not the
scheduler's.

Raise it with any change that an older process would misunderstand, or not know to ignore.
"""

from __future__ import annotations

PROTOCOL = 1
