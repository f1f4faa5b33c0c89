"""The VAE workers of a simulation: first come first served, as from the shared queue."""

from __future__ import annotations

import heapq


class VaeQueue:
    """When each of some workers is free again."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        """How many; 0: there are none, and nothing may be asked."""
        self._free_s = [0.0] * workers

    def end_s(self, now_s: float, decode_s: float) -> float:
        """When a video that comes at *now_s* and takes *decode_s* is decoded."""
        begun_s = max(now_s, self._free_s[0])
        heapq.heapreplace(self._free_s, begun_s + decode_s)
        return begun_s + decode_s
