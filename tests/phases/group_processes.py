"""Worker processes for tests of groups: long-lived, each with models and groups of its own.

A ``Player`` is one process. Like a worker it does one thing at a time in its main thread (``do``)
and can form groups in a side thread meanwhile (``aside``). Both only begin what they are told and
give a ``Pending`` to wait for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ddit_batch.errors import DditError
from ddit_batch.model_config import ModelConfig, Parallelism
from ddit_batch.phases import checkpoint as checkpoints
from ddit_batch.phases import handoff
from ddit_batch.phases.models import wan
from ddit_batch.phases.models.base import Denoiser, DenoisingState
from ddit_batch.phases.sequence_parallel.following import change_group, follow
from ddit_batch.phases.sequence_parallel.group import Order, SPGroup, form_group, lone_group
from ddit_batch.phases.sequence_parallel.xfuser_import import import_wan
from ddit_batch.request import Request

CPU = torch.device("cpu")
PATIENCE_S = 60.0


class Worker:
    """What a process can do; its methods are called by name from the test."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._store = dist.TCPStore("127.0.0.1", port, is_master=False)
        self._denoisers: dict[tuple[Path, Parallelism], Denoiser] = {}
        self._groups: dict[int, SPGroup] = {}
        torch.set_num_threads(1)

    # In the side thread.

    def form(
        self, epoch: int, members: tuple[str, ...], parallelism: Parallelism, timeout_s: float = 30
    ) -> float:
        """Form the group of *epoch*; seconds that it took."""
        begun_s = time.perf_counter()
        self._groups[epoch] = form_group(
            self._store,
            name=f"group{epoch}",
            members=members,
            me=self.name,
            parallelism=parallelism,
            device=CPU,
            timeout_s=timeout_s,
        )
        return time.perf_counter() - begun_s

    # In the main thread.

    def load(self, config: ModelConfig, folder: Path) -> None:
        """Denoise with the model in *folder* from now on."""
        key = folder, config.parallelism
        if key not in self._denoisers:
            self._denoisers[key] = wan.load_denoiser(config, folder, CPU)
        self.denoiser = self._denoisers[key]

    def start(self, request: Request, embeddings: bytes, checkpoint: bytes | None = None) -> None:
        """Lead a job, alone to begin with, from its start or a checkpoint."""
        placed = handoff.embeddings_from_bytes(embeddings)
        if checkpoint is None:
            self._state = self.denoiser.start(request, placed)
        else:
            found = checkpoints.from_bytes(checkpoint)
            self._state = self.denoiser.resume(request, placed, found)
        self._group = lone_group(self.name)
        self.denoiser.bind(self._group)

    def change(self, epoch: int, *, has_newcomers: bool) -> None:
        """Change to the group of *epoch*; to none if this worker is to be alone."""
        old, new = self._group, self._groups.get(epoch) or lone_group(self.name)
        change_group(
            self.denoiser, self._state, old, new, epoch=epoch, has_newcomers=has_newcomers
        )
        self._group = new

    def steps(self, count: int) -> list[float]:
        """Lead so many steps; the seconds of each."""
        taken_s = []
        with torch.no_grad():
            for _ in range(count):
                begun_s = time.perf_counter()
                if not self._group.is_lone:
                    self._group.order(Order.STEP)
                self._state = self.denoiser.step(self._state)
                taken_s.append(time.perf_counter() - begun_s)
        return taken_s

    def end(self) -> bytes:
        """Send the followers away; the checkpoint of the last step."""
        if not self._group.is_lone:
            self._group.order(Order.END)
        self.alone()
        return checkpoints.to_bytes(checkpoints.take(self._state))

    def alone(self) -> None:
        """Drop the group and go on alone."""
        self._group.close(abort=True)
        self._group = lone_group(self.name)
        self.denoiser.bind(self._group)

    def latents(self) -> Tensor:
        """Of the last step."""
        return self._state.latents

    def follow(self, epoch: int) -> None:
        """Follow in the group of *epoch* until sent away."""
        follow(self.denoiser, self._groups[epoch], self._groups.get)

    def close_groups(self) -> None:
        """Close whatever was formed."""
        for group in self._groups.values():
            group.close()
        self._groups.clear()


@dataclass
class Pending:
    """Something that a player was told and may not have done yet."""

    player: str
    method: str
    connection: Connection

    def wait(self, timeout_s: float = PATIENCE_S) -> Any:
        """What came of it; raises what it raised."""
        if not self.connection.poll(timeout_s):
            raise TimeoutError(f"{self.player} has not done {self.method} after {timeout_s} s")
        result = self.connection.recv()
        if isinstance(result, BaseException):
            raise result
        return result


@dataclass
class Player:
    """One worker process, as the test sees it."""

    name: str
    process: multiprocessing.process.BaseProcess
    main: Connection
    side: Connection

    def do(self, method: str, *args: Any, **kwargs: Any) -> Pending:
        """Begin *method* of its ``Worker`` in its main thread."""
        self.main.send((method, args, kwargs))
        return Pending(self.name, method, self.main)

    def aside(self, method: str, *args: Any, **kwargs: Any) -> Pending:
        """Begin *method* in its side thread."""
        self.side.send((method, args, kwargs))
        return Pending(self.name, method, self.side)

    def signal(self, number: signal.Signals) -> None:
        """Kill, stop or continue it."""
        assert self.process.pid
        os.kill(self.process.pid, number)


def start_player(name: str, port: int) -> Player:
    """A new process, forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    (main, its_main), (side, its_side) = context.Pipe(), context.Pipe()
    process = context.Process(target=_play, args=(name, port, its_main, its_side), daemon=True)
    process.start()
    its_main.close()
    its_side.close()
    return Player(name, process, main, side)


def _play(name: str, port: int, main: Connection, side: Connection) -> None:
    worker = Worker(name, port)
    threading.Thread(target=_serve, args=(worker, side), daemon=True).start()
    _serve(worker, main)


def _serve(worker: Worker, connection: Connection) -> None:
    while True:
        try:
            method, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            result = getattr(worker, method)(*args, **kwargs)
        except Exception as exc:  # noqa: BLE001 -- the test is to see it
            exc.add_note(traceback.format_exc())
            result = exc
        connection.send(result)


import_wan()  # before the fork, so that no process pays for it
