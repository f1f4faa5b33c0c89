"""What a change of an SP group costs, and what a second worker gains, each beside its bar.

Worker processes with one torch thread each talk through gloo, on models of random weights that are
built in a temporary folder. ``changes``: 50 changes of each kind on a light model, so that their
cost shows; new groups forming beside the steps of a heavier one; followers killed in mid-step.
``gain``: steps of a model 1,024 wide on 1,280 tokens, alone and by two. Leave the cores idle: the
load stands beside the figures. Exits with 1 if a bar is missed.

    python benchmarks/group_changes.py [changes | gain] [--backend xfuser | diffusers]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers.utils.logging import disable_progress_bar

from ddit_batch.errors import GroupBroken
from ddit_batch.model_config import Backend, Parallelism, from_folder
from ddit_batch.phases.device import inference
from ddit_batch.phases.models import tiny, wan
from ddit_batch.phases.models.base import DenoisingState, Embeddings
from ddit_batch.phases.models.wan_denoiser import WanDenoiser
from ddit_batch.phases.sequence_parallel.following import change_group, follow
from ddit_batch.phases.sequence_parallel.group import Order, SPGroup, form_group, lone_group
from ddit_batch.request import Request

CPU = torch.device("cpu")
CHANGES = 50
BLOCK = 2
"""Steps during each of which, or each second of which, a group forms."""
GAIN_STEPS = 5
KILLED = 3
PATIENCE_S = 900


@dataclass(frozen=True)
class Model:
    """A transformer's size and the video that it denoises."""

    layers: int
    heads: int
    head_dim: int
    height: int
    width: int
    num_frames: int

    @property
    def tokens(self) -> int:
        """Of the transformer: patches of 2 x 2 latents of 8 x 8 pixels and 4 frames."""
        return (self.num_frames + 3) // 4 * (self.height // 16) * (self.width // 16)

    def __str__(self) -> str:
        width = self.heads * self.head_dim
        return f"{self.layers} layers, {width} wide, {self.tokens} tokens"


LIGHT = Model(layers=2, heads=4, head_dim=12, height=64, width=64, num_frames=9)
MIDDLE = Model(layers=4, heads=4, head_dim=64, height=128, width=128, num_frames=17)
WIDE = Model(layers=2, heads=8, head_dim=128, height=256, width=256, num_frames=17)


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    value: float
    unit: str
    bar: float | None = None
    is_floor: bool = False

    @property
    def is_met(self) -> bool:
        """The bar is, if there is one."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.is_floor else self.value <= self.bar

    def __str__(self) -> str:
        bar = "" if self.bar is None else f"{'>=' if self.is_floor else '<='} {self.bar:g}"
        missed = "" if self.is_met else "  MISSED"
        return f"{self.what:<72}{self.value:8.2f} {self.unit:<3}{bar:>8}{missed}"


class Worker:
    """One process of a measurement: a loaded model, and groups by their name."""

    def __init__(self, rank: int, port: int, folder: Path, parallelism: Parallelism) -> None:
        torch.set_num_threads(1)
        self.rank = rank
        self.store = dist.TCPStore("127.0.0.1", port, is_master=False)
        self.parallelism = parallelism
        config = from_folder(folder).model_copy(update={"parallelism": parallelism})
        self.denoiser: WanDenoiser = wan.load_denoiser(config, folder, CPU)
        self.group = lone_group(f"w{rank}")
        self.state: DenoisingState

    def form(self, name: str, size: int) -> SPGroup:
        """The group of the first so many workers."""
        return self._form(name, tuple(f"w{rank}" for rank in range(size)))

    def form_with(self, rank: int) -> SPGroup:
        """The group of the first worker and another one."""
        return self._form(f"with{rank}", ("w0", f"w{rank}"))

    def _form(self, name: str, members: tuple[str, ...]) -> SPGroup:
        return form_group(
            self.store,
            name=name,
            members=members,
            me=f"w{self.rank}",
            parallelism=self.parallelism,
            device=CPU,
            timeout_s=60,
        )

    def start(self, model: Model, steps: int) -> None:
        """Lead a guided job of so many steps, alone to begin with."""
        request = Request(
            custom_id="video",
            line=1,
            model="tiny-wan",
            prompt="",
            negative_prompt="",
            height=model.height,
            width=model.width,
            num_frames=model.num_frames,
            num_inference_steps=steps,
            guidance_scale=5.0,
            seed=0,
            fps=8,
        )
        texts = torch.randn(2, 1, 64, self.denoiser.transformer.config.text_dim)
        self.state = self.denoiser.start(request, Embeddings(prompt=texts[0], negative=texts[1]))

    def step(self) -> None:
        """Lead a step."""
        if not self.group.is_lone:
            self.group.order(Order.STEP)
        self.state = self.denoiser.step(self.state)

    def change(self, group: SPGroup, epoch: int, *, has_newcomers: bool) -> None:
        """Go over to *group*."""
        change_group(
            self.denoiser, self.state, self.group, group, epoch=epoch, has_newcomers=has_newcomers
        )
        self.group = group

    def end(self) -> None:
        """Send the followers away."""
        self.group.order(Order.END)
        self.alone()

    def alone(self) -> None:
        """Go on without a group."""
        self.group = lone_group(f"w{self.rank}")
        self.denoiser.bind(self.group)


def timed(action: Callable[[], object]) -> float:
    """Milliseconds that *action* takes."""
    begun_s = time.perf_counter()
    action()
    return (time.perf_counter() - begun_s) * 1000


def held_changes(worker: Worker) -> list[Figure] | None:
    """Two workers that hold the state go over from one group to another and back."""
    groups = [worker.form(f"held{number}", 2) for number in (0, 1)]
    if worker.rank:
        follow(worker.denoiser, groups[0], groups.__getitem__)
        return None
    worker.start(LIGHT, 2 * CHANGES + 2)
    worker.change(groups[0], 0, has_newcomers=True)
    worker.step()
    plain_ms, changed_ms = [], []

    def change_and_step(number: int) -> None:
        worker.change(groups[number % 2], number % 2, has_newcomers=False)
        worker.step()

    for number in range(1, CHANGES + 1):
        plain_ms.append(timed(worker.step))
        changed_ms.append(timed(lambda number=number: change_and_step(number)))
    worker.end()
    plain, changed = statistics.median(plain_ms), statistics.median(changed_ms)
    return [
        Figure(f"step of two, {LIGHT}", plain, "ms"),
        Figure("change among members that hold the state, beyond a step", changed - plain, "ms", 5),
    ]


def newcomers(worker: Worker) -> list[Figure] | None:
    """A second worker joins a lone leader, gets the state and is sent away again."""
    group = worker.form("newcomers", 2)
    if worker.rank:
        for _ in range(CHANGES):
            follow(worker.denoiser, group, {}.get)
        return None
    worker.start(LIGHT, 2 * CHANGES)
    plain_ms, joined_ms = [], []

    def join_and_step() -> None:
        worker.change(group, 1, has_newcomers=True)
        worker.step()

    for _ in range(CHANGES):
        time.sleep(0.01)  # the newcomer is waiting by then
        joined_ms.append(timed(join_and_step))
        plain_ms.append(timed(worker.step))
        worker.end()
    beyond = statistics.median(joined_ms) - statistics.median(plain_ms)
    return [Figure("change with the state sent to a newcomer, beyond a step", beyond, "ms", 50)]


def forming(worker: Worker) -> list[Figure] | None:
    """Two workers step; every second step a third one and they form a group in side threads."""
    if worker.rank == 2:
        _form_when_told(worker)
        return None
    group = worker.form("stepping", 2)
    aside = threading.Thread(target=_form_when_told, args=(worker,))
    aside.start()
    if worker.rank:
        follow(worker.denoiser, group, {}.get)
        aside.join()
        return None
    return _steps_beside_forming(worker, group, aside)


def _form_when_told(worker: Worker) -> None:
    formed = []
    for number in range(CHANGES):
        worker.store.wait([f"go{number}"])
        formed.append(worker.form(f"beside{number}", 3))
    for group in formed:  # not before all members have each of them
        group.close()


def _steps_beside_forming(worker: Worker, group: SPGroup, aside: threading.Thread) -> list[Figure]:
    worker.start(MIDDLE, 2 * BLOCK * CHANGES + 1)
    worker.change(group, 1, has_newcomers=True)
    worker.step()
    teller = dist.TCPStore("127.0.0.1", worker.store.port, is_master=False)
    undisturbed_ms, beside_ms = [], []

    def block() -> None:
        for _ in range(BLOCK):
            worker.step()

    for number in range(CHANGES):
        undisturbed_ms.append(timed(block))
        teller.set(f"go{number}", "")
        beside_ms.append(timed(block))
    worker.end()
    aside.join()
    undisturbed, beside = statistics.median(undisturbed_ms), statistics.median(beside_ms)
    return [
        Figure(f"step of two, {MIDDLE}", undisturbed / BLOCK, "ms"),
        Figure(
            f"steps per second beside a forming group every {BLOCK} steps, of undisturbed",
            undisturbed / beside,
            "",
            0.95,
            is_floor=True,
        ),
    ]


def kills(worker: Worker) -> list[Figure] | None:
    """A leader whose followers kill themselves in mid-step, one after the other."""
    if worker.rank:
        _die_in_mid_step(worker)
    worker.start(LIGHT, 2 * KILLED + 1)
    noticed_ms, stepping_ms = [], []
    for rank in range(1, KILLED + 1):
        group = worker.form_with(rank)
        worker.change(group, 1, has_newcomers=True)
        try:
            worker.step()
        except GroupBroken:
            now_s = time.monotonic()
        killed_s = float(worker.store.get(f"killed{rank}"))
        worker.alone()
        worker.step()
        noticed_ms.append((now_s - killed_s) * 1000)
        stepping_ms.append((time.monotonic() - killed_s) * 1000)
    return [
        Figure("follower killed in mid-step: noticed", statistics.median(noticed_ms), "ms"),
        Figure("... and a step taken alone", statistics.median(stepping_ms), "ms", 2000),
    ]


def _die_in_mid_step(worker: Worker) -> None:
    def die(*_: object) -> None:
        worker.store.set(f"killed{worker.rank}", str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)

    worker.denoiser.transformer.blocks[1].register_forward_pre_hook(die)
    follow(worker.denoiser, worker.form_with(worker.rank), {}.get)


def gain(worker: Worker) -> list[Figure] | None:
    """The same steps alone and by two workers."""
    group = worker.form("gain", 2)
    if worker.rank:
        follow(worker.denoiser, group, {}.get)
        return None
    worker.start(WIDE, 2 * GAIN_STEPS + 2)
    worker.step()
    alone_ms = statistics.median(timed(worker.step) for _ in range(GAIN_STEPS))
    worker.change(group, 1, has_newcomers=True)
    worker.step()
    together_ms = statistics.median(timed(worker.step) for _ in range(GAIN_STEPS))
    worker.end()
    how = f"{worker.parallelism.backend}{', halves' if worker.parallelism.guidance else ''}"
    return [
        Figure(f"step of one, {WIDE}", alone_ms, "ms"),
        Figure(f"step of two, {how}", together_ms, "ms"),
        Figure(f"dop 1 over dop 2, {how}", alone_ms / together_ms, "", 1.5, is_floor=True),
    ]


Measure = Callable[[Worker], list[Figure] | None]


def run(measure: Measure, workers: int, folder: Path, parallelism: Parallelism) -> list[Figure]:
    """What the first of so many *workers* finds."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    results: Queue[list[Figure]] = context.Queue()
    arguments = (measure, store.port, folder, parallelism, results)
    processes = [
        context.Process(target=_work, args=(rank, *arguments), daemon=True)
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    figures = results.get(timeout=PATIENCE_S)
    for process in processes:
        process.join(30)
    return figures


def _work(  # noqa: PLR0917 -- Process passes by position
    rank: int,
    measure: Measure,
    port: int,
    folder: Path,
    parallelism: Parallelism,
    results: Queue[list[Figure]],
) -> None:
    worker = Worker(rank, port, folder, parallelism)
    with inference("measuring"):
        figures = measure(worker)
    if figures is not None:
        results.put(figures)


def built(model: Model, folder: Path) -> Path:
    """A folder with such a model."""
    where = folder / f"{model.layers}-{model.heads}-{model.head_dim}"
    tiny.build(where, layers=model.layers, heads=model.heads, head_dim=model.head_dim)
    return where


def changes_of(backends: list[Backend], folder: Path) -> Iterator[Figure]:
    """What changes cost, and what a dead follower costs."""
    light, middle = built(LIGHT, folder), built(MIDDLE, folder)
    for backend in backends:
        print(f"{backend}:")
        parallelism = Parallelism(backend=backend)
        yield from run(held_changes, 2, light, parallelism)
        yield from run(newcomers, 2, light, parallelism)
        yield from run(forming, 3, middle, parallelism)
        yield from run(kills, 1 + KILLED, light, parallelism)


def gains_of(backends: list[Backend], folder: Path) -> Iterator[Figure]:
    """What the second worker brings, by each library and by halves that ask with and without."""
    wide = built(WIDE, folder)
    for backend in backends:
        yield from run(gain, 2, wide, Parallelism(backend=backend))
    yield from run(gain, 2, wide, Parallelism(guidance=True))


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", nargs="?", choices=("changes", "gain"), default="changes")
    parser.add_argument("--backend", choices=list(Backend), type=Backend, action="append")
    arguments = parser.parse_args()
    backends = arguments.backend or list(Backend)
    measure = changes_of if arguments.what == "changes" else gains_of
    print(f"{os.cpu_count()} cores, torch {torch.__version__}; {load()}")
    missed = 0
    disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="ddit-bench-") as folder:
        for figure in measure(backends, Path(folder)):
            print(figure, flush=True)
            missed += not figure.is_met
    print(f"{load()} now, this included; {missed} missed")
    return 1 if missed else 0


def load() -> str:
    """How busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
