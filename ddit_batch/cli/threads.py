"""How many CPU threads a worker's torch gets on this machine."""

from __future__ import annotations

import os


def threads_for(dit_workers: int) -> int:
    """An equal share of the cores this process may use, at least one, for each DiT worker.

    DiT does nearly all of the work; the other phases share what is left over.
    """
    return max(1, len(os.sched_getaffinity(0)) // (dit_workers + 1))
