"""What a cluster consists of, as data: which children besides Postgres and Valkey, with what env.

Pure but for reading the environment that the children inherit. Who starts them: ``supervisor``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import cycle
from signal import SIGKILL

from ddit_batch.cluster_file import WorkerSlot
from ddit_batch.config import load_settings
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.process import Service
from ddit_batch.job import Phase

_DRAIN_MARGIN_S = 5.0
"""What a worker may take on top of its drain time before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """How many of what to start."""

    dit_workers: int
    encode_workers: int = 1
    vae_workers: int = 1
    schedulers: int = 1
    models: tuple[str, ...]
    """Names, config files or folders of the models that every worker serves."""
    flower: bool = False
    torch_threads: int = 0
    """CPU threads of one worker; 0 leaves torch's own choice."""
    policy: str = ""
    """Spec of the schedulers' policy; empty leaves it to their environment."""
    devices: tuple[str, ...] = ()
    """Given to the workers in turn, DiT workers first; empty leaves the choice to them."""
    slots: tuple[WorkerSlot, ...] = ()
    """The workers one by one, as a cluster file has them, in place of the numbers and devices."""
    is_deployed: bool = False
    """Database, broker and store are those of the environment: only workers are started."""
    extra_env: tuple[tuple[str, str], ...] = ()
    """Variables for every child of the plan; they win over ours."""

    def to_json(self) -> str:
        """The plan as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ClusterPlan:
        """The plan that :meth:`to_json` wrote."""
        given = json.loads(text)
        given["models"] = tuple(given["models"])
        given["devices"] = tuple(given["devices"])
        given["slots"] = tuple(
            WorkerSlot(**{**slot, "phase": Phase(slot["phase"])}) for slot in given["slots"]
        )
        given["extra_env"] = tuple((name, value) for name, value in given["extra_env"])
        return cls(**given)

    @property
    def workers(self) -> tuple[WorkerSlot, ...]:
        """The workers, DiT first."""
        if self.slots:
            return self.slots
        counts = {
            Phase.DIT: self.dit_workers,
            Phase.ENCODE: self.encode_workers,
            Phase.VAE: self.vae_workers,
        }
        names = [(phase, f"{phase}-{i}") for phase, count in counts.items() for i in range(count)]
        return tuple(
            WorkerSlot(phase=phase, name=name, device=device)
            for (phase, name), device in zip(names, cycle(self.devices or ("",)), strict=False)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the children find each other."""

    database_url: str
    broker_url: str
    artifacts_url: str
    flower_port: int


def planned_services(home: Home, plan: ClusterPlan, at: Addresses) -> tuple[Service, ...]:
    """The children of *plan* in the order of starting: schedulers, workers, Flower."""
    env = _shared_env(home, plan, at)
    drain_s = float(env.get("DDIT_DRAIN_S") or load_settings().drain_s)
    services = [
        _command(home, f"scheduler-{i}", ("scheduler",), env=env, stop_order=0)
        for i in range(plan.schedulers)
    ]
    for slot in plan.workers:
        own = {"DDIT_DEVICE": slot.device, "DDIT_NODE": slot.node}
        worker = _command(
            home,
            slot.name,
            ("worker", "--phase", str(slot.phase), "--name", slot.name),
            env={**env, **{name: value for name, value in own.items() if value}},
            stop_order=2,
            grace_s=drain_s + _DRAIN_MARGIN_S,
        )
        services.append(worker)
    if plan.flower:
        port = str(at.flower_port)
        words = ("flower", "--port", port)
        url = f"http://127.0.0.1:{port}"
        services.append(_command(home, "flower", words, env=env, stop_order=1, url=url))
    return tuple(services)


def _command(
    home: Home,
    name: str,
    words: tuple[str, ...],
    *,
    env: Mapping[str, str],
    stop_order: int,
    grace_s: float = 5.0,
    url: str = "",
) -> Service:
    return Service(
        name=name,
        argv=(sys.executable, "-m", "ddit_batch.cli", *words),
        env=env,
        log=home.log(name),
        grace_s=grace_s,
        stop_order=stop_order,
        death_signal=SIGKILL,
        url=url,
    )


def _shared_env(home: Home, plan: ClusterPlan, at: Addresses) -> dict[str, str]:
    env = {
        **os.environ,
        "DDIT_DATABASE_URL": at.database_url,
        "DDIT_BROKER_URL": at.broker_url,
        "DDIT_ARTIFACTS_URL": at.artifacts_url,
        "DDIT_MODELS": ",".join(plan.models),
        "DDIT_BUILT_MODELS_FOLDER": str(home.models),
        "DDIT_TORCH_THREADS": str(plan.torch_threads),
    }
    if plan.policy:
        env["DDIT_POLICY"] = plan.policy
    if plan.torch_threads > 0:
        env["OMP_NUM_THREADS"] = str(plan.torch_threads)
    return {**env, **dict(plan.extra_env)}
