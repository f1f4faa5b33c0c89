"""One worker process of the tests of groups: a model, groups, and one job at a time.

``Worker``'s methods are called by name from the test, through ``group_stage.py``.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ddit_batch.errors import DditError, GroupBroken
from ddit_batch.model_config import ModelConfig, Parallelism
from ddit_batch.phases import checkpoint as checkpoints
from ddit_batch.phases import handoff
from ddit_batch.phases.device import inference
from ddit_batch.phases.models import wan
from ddit_batch.phases.models.base import DenoisingState
from ddit_batch.phases.models.wan_denoiser import WanDenoiser
from ddit_batch.phases.sequence_parallel import torch_private
from ddit_batch.phases.sequence_parallel.following import change_group, follow
from ddit_batch.phases.sequence_parallel.group import Order, SPGroup, form_group, lone_group
from ddit_batch.phases.sequence_parallel.watch import PeerWatch
from ddit_batch.phases.sequence_parallel.xfuser_import import import_wan
from ddit_batch.request import Request

import_wan()  # before the fork, so that no process pays for it


@dataclass(frozen=True)
class Broke:
    """What a leader saw of a broken group."""

    at_s: float
    """Of the monotonic clock, which the processes of a machine share."""
    step: int
    """Steps done."""
    message: str


class Worker:
    """What a process can do."""

    _denoiser: WanDenoiser
    _state: DenoisingState
    _group: SPGroup

    def __init__(self, name: str, device: str, port: int, side: Connection) -> None:
        self.name = name
        self._device = torch.device(device)
        self._side = side
        self._store = dist.TCPStore("127.0.0.1", port, is_master=False)
        self._denoisers: dict[tuple[Path, Parallelism], WanDenoiser] = {}
        self._groups: dict[int, SPGroup] = {}
        torch.set_num_threads(1)

    # In the side thread.

    def form(
        self,
        epoch: int,
        members: tuple[str, ...],
        parallelism: Parallelism,
        *,
        timeout_s: float = 30,
        form_timeout_s: float = 30,
    ) -> None:
        """Form the group of *epoch*."""
        self._groups[epoch] = form_group(
            self._store,
            name=f"group{epoch}",
            members=members,
            me=self.name,
            parallelism=parallelism,
            device=self._device,
            timeout_s=timeout_s,
            form_timeout_s=form_timeout_s,
        )

    # In the main thread.

    def load(self, config: ModelConfig, folder: Path) -> None:
        """Denoise with the model in *folder* from now on."""
        key = folder, config.parallelism
        if key not in self._denoisers:
            self._denoisers[key] = wan.load_denoiser(config, folder, self._device)
        self._denoiser = self._denoisers[key]

    def start(self, request: Request, embeddings: bytes, checkpoint: bytes | None) -> None:
        """Lead a job, alone to begin with, from its start or a checkpoint."""
        placed = handoff.embeddings_from_bytes(embeddings)
        if checkpoint is None:
            self._state = self._denoiser.start(request, placed)
        else:
            found = checkpoints.from_bytes(checkpoint)
            self._state = self._denoiser.resume(request, placed, found)
        self._group = lone_group(self.name)
        self._denoiser.bind(self._group)

    def steps(self, count: int) -> None:
        """Lead so many steps."""
        with inference("stepping"):
            for _ in range(count):
                if not self._group.is_lone:
                    self._group.order(Order.STEP)
                self._state = self._denoiser.step(self._state)

    def steps_until_broken(self, count: int) -> Broke:
        """Lead steps until the group breaks, at the latest after *count*, and be alone then."""
        try:
            self.steps(count)
        except GroupBroken as exc:
            broke = Broke(at_s=time.monotonic(), step=self._state.step, message=str(exc))
            self.alone()
            return broke
        raise AssertionError(f"the group took {count} steps and did not break")

    def change(self, epoch: int, *, has_newcomers: bool) -> None:
        """Change to the group of *epoch*; to none if this worker is to be alone."""
        old, new = self._group, self._groups.get(epoch) or lone_group(self.name)
        change_group(
            self._denoiser, self._state, old, new, epoch=epoch, has_newcomers=has_newcomers
        )
        self._group = new

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
        self._denoiser.bind(self._group)

    def follow(self, epoch: int) -> None:
        """Follow in the group of *epoch* until sent away; after an error be in no group."""
        try:
            follow(self._denoiser, self._groups[epoch], self._groups.get)
        except DditError:
            self.close_groups()
            raise

    def close_groups(self) -> None:
        """Close whatever was formed."""
        for group in self._groups.values():
            group.close()
        self._groups.clear()

    # What a test does to a worker.

    def signal_in_step(self, number: signal.Signals) -> None:
        """Have *number* sent to this process in the middle of its next step."""

        def send(*_: object) -> None:
            hook.remove()
            self._side.send(time.monotonic())
            os.kill(os.getpid(), number)

        hook = self._denoiser.transformer.blocks[1].register_forward_pre_hook(send)

    def fill_memory_in_step(self) -> None:
        """Have the next step of this process ask in its middle for more than any machine has."""

        def ask(*_: object) -> None:
            hook.remove()
            torch.empty(10**14, dtype=torch.uint8)

        hook = self._denoiser.transformer.blocks[1].register_forward_pre_hook(ask)

    def watch(self, epoch: int) -> None:
        """Tell the test, unasked, when another member of a group is missed."""
        axis = self._groups[epoch]._everybody
        self._watch = PeerWatch(axis, lambda rank: self._side.send((rank, time.monotonic())))

    def leave_watch(self, *, abort: bool = False) -> None:
        """Say goodbye."""
        self._watch.close(abort=abort)

    def unmask_padding(self) -> None:
        """Let xfuser attend to its padding, as it does by itself."""
        for block in self._denoiser.transformer.blocks:
            block.attn1.processor.attention_kwargs = None

    def forget_models(self) -> None:
        """Load afresh next time."""
        self._denoisers.clear()

    def leftovers(self) -> tuple[int, int, int]:
        """Groups in torch's tables, open files and threads of this process."""
        in_tables = sum(len(table) for table in torch_private.tables())
        process = Path("/proc/self")
        files, threads = (len(list((process / kind).iterdir())) for kind in ("fd", "task"))
        return in_tables, files, threads


def play(name: str, device: str, port: int, main: Connection, side: Connection) -> None:
    """The life of a worker process."""
    worker = Worker(name, device, port, side)
    threading.Thread(target=_serve, args=(worker, side), daemon=True).start()
    _serve(worker, main)


def _serve(worker: Worker, connection: Connection) -> None:
    while True:
        try:
            method, args, kwargs = connection.recv()
        except EOFError:
            return
        result: Any
        try:
            result = getattr(worker, method)(*args, **kwargs)
        except Exception as exc:  # noqa: BLE001 -- the test is to see it
            exc.add_note(traceback.format_exc())
            result = exc
        connection.send(result)
