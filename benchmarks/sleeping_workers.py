"""Worker processes whose models only sleep; all else about them is real.

Imports what is heavy once and forks: a dozen workers start in seconds, and share the memory. Each
is then a Celery worker as ``ddit worker`` starts it, with its lease, its claims, its files and its
deliveries. Only the three parts of a model are others, and the mp4 is a few bytes.

Every worker notes how long each of its state changes took, from the call to the commit.

    python benchmarks/sleeping_workers.py --encode 4 --dit 6 --vae 4 --sleep-s 0.01 --notes FOLDER
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddit_batch.config import load_settings
from ddit_batch.db.claims import ClaimStore
from ddit_batch.job import Phase, WorkerName, queue_of
from ddit_batch.phases.models import registry
from ddit_batch.phases.models.base import DenoisingState, Embeddings, Frames, request_digest
from ddit_batch.request import Request

PRELOADED = (
    *("av", "celery.bin.celery", "celery.concurrency.thread", "diffusers", "safetensors.torch"),
    *("transformers", "torch.distributed", "ddit_batch.phases.sequence_parallel.group"),
)
CHANGES = ("claim", "finish_encode", "finish_dit", "finish_vae")
"""The calls of a worker that change a job's state on its straight way."""
MP4 = b"no video, but somebody's bytes"
_FRAMES: Frames = np.zeros((1, 2, 2, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Sleeper:
    """All three parts of a model."""

    sleep_s: float

    def encode(self, _request: Request) -> Embeddings:
        """Embeddings of nothing."""
        time.sleep(self.sleep_s)
        return Embeddings(prompt=torch.zeros(1, 1, 1), negative=None)

    def start(self, request: Request, embeddings: Embeddings) -> DenoisingState:
        """A state of one number."""
        return DenoisingState(
            latents=torch.zeros(1, 1, 1, 1, 1),
            step=0,
            steps=request.num_inference_steps,
            solver=None,  # type: ignore[arg-type]  # no checkpoint of so few steps is taken
            embeddings=embeddings,
            guidance_scale=request.guidance_scale,
            shape=request.shape,
            digest=request_digest(request),
        )

    def bind(self, _group: object) -> None:
        """Alone or not: it sleeps as long."""

    def step(self, state: DenoisingState) -> DenoisingState:
        """One step on."""
        time.sleep(self.sleep_s)
        return replace(state, step=state.step + 1)

    def decode(self, _latents: torch.Tensor) -> Frames:
        """Hardly a frame."""
        time.sleep(self.sleep_s)
        return _FRAMES


class SleepingFamily:
    """In place of a family of models."""

    def __init__(self, sleep_s: float) -> None:
        self._sleeper = Sleeper(sleep_s)

    def _load(self, *_: object) -> Sleeper:
        return self._sleeper

    load_encoder = load_denoiser = load_decoder = _load


def main() -> None:
    """Fork the workers, and wait until they have been told to stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for phase in Phase:
        parser.add_argument(f"--{phase}", type=int, required=True, help="workers of this phase")
    parser.add_argument("--sleep-s", type=float, required=True, help="for each phase, and step")
    parser.add_argument("--notes", type=Path, required=True, help="folder for logs and times")
    given = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=serve, args=(phase, f"{phase}-{number}", given.sleep_s, given.notes))
        for phase in Phase
        for number in range(getattr(given, phase))
    ]
    for worker in workers:
        worker.start()

    def stop(*_: object) -> None:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for worker in workers:
        worker.join()


def serve(phase: Phase, slot: str, sleep_s: float, notes: Path) -> None:
    """Be a worker until SIGTERM; then write down how long the state changes took."""
    os.dup2(os.open(notes / f"{slot}.log", os.O_CREAT | os.O_WRONLY), 1)
    os.dup2(1, 2)
    name = WorkerName(f"{slot}@{load_settings().host}")
    os.environ |= {"DDIT_WORKER_PHASE": phase, "DDIT_WORKER_NAME": name}
    queues = [queue_of(phase, name)] + ([] if phase is Phase.DIT else [queue_of(phase)])
    took_s = _note_changes()
    registry.family_of = lambda _: SleepingFamily(sleep_s)  # type: ignore[assignment,return-value]
    registry.resolve_source = lambda *_: "."
    app = importlib.import_module("workers.app").app
    if phase is Phase.VAE:
        importlib.import_module("workers.vae").encode_mp4 = lambda *_: MP4
    words = ["-q", "worker", "--pool", "threads", "--concurrency", "1", "--hostname", name]
    words += ["--queues", ",".join(queues), "--task-events", "--without-gossip"]
    try:
        app.start([*words, "--without-mingle", "--loglevel", "WARNING"])
    finally:
        (notes / f"{slot}.json").write_text(json.dumps(took_s), "utf-8")
        sys.stdout.flush()


def _note_changes() -> dict[str, list[float]]:
    """Have the calls of ``CHANGES`` noted, in seconds."""
    took_s: dict[str, list[float]] = {}
    for name in CHANGES:
        took_s[name] = []
        setattr(ClaimStore, name, _timed(getattr(ClaimStore, name), took_s[name]))
    return took_s


def _timed(call: Callable[..., Any], took_s: list[float]) -> Callable[..., Any]:
    @functools.wraps(call)
    def timed(*args: object, **kwargs: object) -> object:
        begun_s = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            took_s.append(time.perf_counter() - begun_s)

    return timed


if __name__ == "__main__":
    main()
