"""How much of the cores other programs took, while a benchmark wanted them for itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psutil


class Others:
    """The share of the cores that neither these processes, nor their children, nor we took."""

    def __init__(self, *pids: int) -> None:
        self._pids = (os.getpid(), *pids)
        self._since = time.monotonic()
        self._total_s, self._own_s = _total_s(), self._take_own_s()

    def share(self) -> float:
        """Since the last time that it was asked, or since it was made; 0 to 1."""
        now, total_s, own_s = time.monotonic(), _total_s(), self._take_own_s()
        had_s = (now - self._since) * (os.cpu_count() or 1)
        taken_s = (total_s - self._total_s) - (own_s - self._own_s)
        self._since, self._total_s, self._own_s = now, total_s, own_s
        return min(max(taken_s / had_s, 0.0), 1.0)

    def _take_own_s(self) -> float:
        """Processor seconds of ours so far, those of children that have ended included."""
        return sum(map(_cpu_s, {process.pid: process for process in self._processes()}.values()))

    def _processes(self) -> Iterator[psutil.Process]:
        for pid in self._pids:
            try:
                process = psutil.Process(pid)
                yield process
                yield from process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _total_s() -> float:
    """Processor seconds that anybody has taken since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)
