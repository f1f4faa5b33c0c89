"""Worker processes on which jobs grow and shrink: one set for all tests of groups.

Like a worker, a ``Player`` does one thing at a time in its main thread (``do``) and can form groups
in a side thread meanwhile (``aside``). Both only begin what they are told and give a ``Pending``.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny_model import Model
from torch import Tensor

from ddit_batch.errors import DditError
from ddit_batch.model_config import ModelConfig, Parallelism
from ddit_batch.phases import checkpoint as checkpoints
from ddit_batch.phases import handoff
from ddit_batch.phases.encode import encode
from ddit_batch.request import Request

PATIENCE_S = 60.0
CPU = "cpu"
ROUNDING = 0.01
"""Of the norm: a wrong piece of the sequence or a step done twice is off by far more."""

MakeStagedModel = Callable[..., "StagedModel"]
"""Has all players load the model of a solver, with some fields of Parallelism."""


@dataclass
class Pending:
    """Something that a player was told and may not have done yet."""

    what: str
    connection: Connection

    def wait(self, timeout_s: float = PATIENCE_S) -> Any:
        """What came of it; raises what it raised."""
        if not self.connection.poll(timeout_s):
            raise TimeoutError(f"{self.what} is not done after {timeout_s} s")
        result = self.connection.recv()
        if isinstance(result, BaseException):
            raise result
        return result


@dataclass
class Player:
    """One worker process, as the test sees it."""

    name: str
    process: BaseProcess
    main: Connection
    side: Connection

    def do(self, method: str, *args: Any, **kwargs: Any) -> Pending:
        """Begin *method* of its ``Worker`` in its main thread."""
        self.main.send((method, args, kwargs))
        return Pending(f"{method} of {self.name}", self.main)

    def aside(self, method: str, *args: Any, **kwargs: Any) -> Pending:
        """Begin *method* in its side thread."""
        self.side.send((method, args, kwargs))
        return Pending(f"{method} of {self.name}", self.side)

    def signal(self, number: signal.Signals) -> None:
        """Kill, stop or continue it."""
        assert self.process.pid
        os.kill(self.process.pid, number)

    def signalled_s(self) -> float:
        """When, by the monotonic clock, it sent itself what ``signal_in_step`` said."""
        at_s: float = self.unasked().wait()
        return at_s

    def unasked(self) -> Pending:
        """What its side thread says without being asked."""
        return Pending(f"word of {self.name}", self.side)

    def close(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.main.close()
        self.side.close()


@dataclass
class Formation:
    """A group on its way."""

    epoch: int
    ranks: tuple[int, ...]
    pending: list[Pending]

    def wait(self) -> int:
        """The epoch, when all members have formed it."""
        wait(*self.pending)
        return self.epoch


def wait(*pending: Pending) -> list[Any]:
    """What came of all of them."""
    return [one.wait() for one in pending]


class Stage:
    """Four players, w0 to w3, and who is busy with what."""

    def __init__(self, *devices: str) -> None:
        """Players on *devices* in turn."""
        _let_the_forkserver_find_this_folder()
        self._devices = devices
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._epochs = itertools.count(1)
        self._loaded: tuple[ModelConfig, Path] | None = None
        self.players = [self._started(rank) for rank in range(4)]
        self.busy: set[int] = set()

    @property
    def is_exact(self) -> bool:
        """Whether its numbers are those of this process, to the bit."""
        return self._devices == (CPU,)

    @property
    def parallelism(self) -> Parallelism:
        """Of the model that all have loaded."""
        assert self._loaded
        return self._loaded[0].parallelism

    def load(self, config: ModelConfig, folder: Path) -> None:
        """Have everybody denoise with a model from now on, and nobody be busy."""
        self._loaded = config, folder
        self.busy.clear()
        pending = [player.do("load", config, folder) for player in self.players]
        wait(*pending)

    def replace(self, rank: int) -> None:
        """Have a new process in the place of one that is dead, or as good as dead."""
        assert self._loaded
        self.players[rank].close()
        self.players[rank] = self._started(rank)
        self.players[rank].do("load", *self._loaded).wait()
        self.busy.discard(rank)

    def form(self, *ranks: int, **limits: float) -> Formation:
        """Begin to form a group of *ranks* in the side threads."""
        epoch = next(self._epochs)
        members = tuple(f"w{rank}" for rank in ranks)
        pending = [
            self.players[rank].aside("form", epoch, members, self.parallelism, **limits)
            for rank in ranks
        ]
        return Formation(epoch, ranks, pending)

    def close_groups(self) -> None:
        """Have nobody in any group."""
        wait(*[player.do("close_groups") for player in self.players])

    def close(self) -> None:
        """End everybody."""
        for player in self.players:
            player.close()

    def _started(self, rank: int) -> Player:
        """A new process, forked from one that has imported everything and computed nothing."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["group_worker"])
        (main, its_main), (side, its_side) = context.Pipe(), context.Pipe()
        name = f"w{rank}"
        device = self._devices[rank % len(self._devices)]
        process = context.Process(
            target=_play, args=(name, device, self._store.port, its_main, its_side), daemon=True
        )
        process.start()
        its_main.close()
        its_side.close()
        return Player(name, process, main, side)


class StagedJob:
    """One job: leader and followers change at step boundaries as the test says."""

    def __init__(self, stage: Stage, request: Request, embeddings: bytes) -> None:
        self._stage = stage
        self._request = request
        self._embeddings = embeddings
        self._checkpoint: bytes | None = None
        self._following: dict[int, Pending] = {}
        self.ranks: tuple[int, ...] = ()

    @property
    def leader(self) -> Player:
        """Who leads it now."""
        return self._stage.players[self.ranks[0]]

    def start(self, rank: int) -> None:
        """Begin, or go on from the checkpoint, alone on *rank*."""
        self._occupy((rank,))
        self.leader.do("start", self._request, self._embeddings, self._checkpoint).wait()

    def steps(self, count: int) -> Pending:
        """Begin so many steps."""
        return self.leader.do("steps", count)

    def change(
        self, *ranks: int, steps_meanwhile: int = 0, newcomers_wait_s: float = 0, **limits: float
    ) -> None:
        """Go over to the group of *ranks*, which forms while the old one steps."""
        assert ranks[0] == self.ranks[0], "a leader stays for the life of its task"
        before = self.ranks
        formation = self._stage.form(*ranks, **limits) if len(ranks) > 1 else None
        stepping = self.steps(steps_meanwhile)
        epoch = formation.wait() if formation else 0
        newcomers = set(ranks) - set(before)
        self._occupy((*before, *newcomers))
        for rank in newcomers:
            self._following[rank] = self._stage.players[rank].do("follow", epoch)
        stepping.wait()
        time.sleep(newcomers_wait_s)
        self.leader.do("change", epoch, has_newcomers=bool(newcomers)).wait()
        for rank in set(before) - set(ranks):
            self._following.pop(rank).wait()
        self._occupy(ranks)

    def release(self) -> None:
        """Checkpoint, and let everybody go."""
        self._checkpoint = self.leader.do("end").wait()
        wait(*self._following.values())
        self._following.clear()
        self._occupy(())

    def left_alone(self, *, without: tuple[int, ...] = ()) -> list[DditError]:
        """Have the leader drop its group; what that raised in the followers but those *without*."""
        self.leader.do("alone").wait()
        raised = self._raised(without)
        self._occupy(self.ranks[:1])
        return raised

    def without_leader(self) -> list[DditError]:
        """The leader is dead: what that raised in the followers."""
        raised = self._raised(without=())
        self._occupy(())
        return raised

    def latents(self) -> Tensor:
        """Of the last step before the release."""
        assert self._checkpoint
        return checkpoints.from_bytes(self._checkpoint).latents

    def _raised(self, without: tuple[int, ...]) -> list[DditError]:
        raised = []
        for rank in set(self._following) - set(without):
            try:
                self._following[rank].wait()
            except DditError as exc:
                raised.append(exc)
        self._following.clear()
        return raised

    def _occupy(self, ranks: tuple[int, ...]) -> None:
        others = self._stage.busy - set(self.ranks)
        assert not others & set(ranks), f"{others & set(ranks)} would be in two groups"
        self._stage.busy = others | set(ranks)
        self.ranks = ranks


class StagedModel:
    """A model that all players have loaded, and this process, too, for what they should give."""

    def __init__(self, stage: Stage, model: Model) -> None:
        self._stage = stage
        self._model = model

    def job(self, request: Request) -> StagedJob:
        """*request*, to be denoised by players."""
        embeddings = encode(self._model.encoder, request)
        return StagedJob(self._stage, request, handoff.embeddings_to_bytes(embeddings))

    def alone(self, request: Request) -> Tensor:
        """The latents of an undisturbed run on one worker: here."""
        return self._model.latents(request)

    def is_right(self, job: StagedJob, request: Request) -> bool:
        """Whether *job* gave what an undisturbed run gives: on a CPU bit for bit.

        A GPU sums in another order than the CPU of this process.
        """
        got, wanted = job.latents(), self.alone(request)
        if self._stage.is_exact:
            return torch.equal(got, wanted)
        return bool((got - wanted).norm() < ROUNDING * wanted.norm())


def _let_the_forkserver_find_this_folder() -> None:
    """Before Python 3.13 it preloads nothing that is found only through ``sys.path``."""
    folder, path = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    if folder not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [path])])


def _play(*arguments: Any) -> None:
    from group_worker import play  # noqa: PLC0415 -- it imports what only the processes need

    play(*arguments)
