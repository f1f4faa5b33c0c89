"""ddit-batch: a file of prompts becomes videos, durably, on the GPUs at hand.

Where to read next: ``request.py`` (what a user asks for), ``job.py`` and ``lifecycle.py`` (what
becomes of it), ``scheduler/core.py`` (who works on what), ``workers/`` (the work itself).
"""

__version__ = "0.1.0"
