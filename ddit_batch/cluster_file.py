"""The cluster file: which hosts there are, their nodes and GPUs, and so which workers.

Pure: reads YAML, starts nothing. ``ddit up --cluster FILE`` and ``ddit run --cluster FILE`` start
the workers that it gives to the host that they run on; ``embedded/plan.py`` makes them processes.
The format is explained in ``docs/deploy.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddit_batch.errors import ConfigError
from ddit_batch.job import Phase
from ddit_batch.yaml_file import read_yaml

CPU = "cpu"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda:[0-9]+)$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSlot:
    """A place for one worker process on a host."""

    phase: Phase
    name: str
    """Without the host: ``dit-0``."""
    device: str = ""
    """Empty leaves the choice to the worker."""
    node: str = ""
    """Empty: the host is one node."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Node(_Value):
    """Workers that may denoise a video together."""

    name: Name | None = None
    """Its name, of its own in the whole file; without one, that of the host, if it is its only."""
    devices: Annotated[tuple[Device, ...], Field(min_length=1)]
    """One DiT worker each: ``cuda:0``, ``cuda:1``, ..., or ``cpu`` as often as there are to be CPU
    workers."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({device == CPU for device in self.devices}) > 1:
            raise ValueError("devices has GPUs and cpu: make two nodes, they cannot be one group")
        return self


class Host(_Value):
    """One machine."""

    name: Name
    """As its workers know it: ``DDIT_HOST``, by default its host name."""
    nodes: tuple[Node, ...] = ()
    """Its nodes: several where not all its GPUs are well connected. None: it has no DiT workers."""
    encode: tuple[Device, ...] | None = None
    """One encode worker each, which may share a GPU with others; [] for none. Without it one, on
    the first device of its nodes, if it has any."""
    vae: tuple[Device, ...] | None = None
    """One VAE worker each, likewise; without it one, on the last device of its nodes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        counts = Counter(device for device in self.devices if device != CPU)
        twice = next((device for device, count in counts.items() if count > 1), None)
        if twice:
            raise ValueError(f"host {self.name} has {twice} twice: a GPU takes one DiT worker")
        if len(self.nodes) > 1 and not all(node.name for node in self.nodes):
            raise ValueError(f"host {self.name} has several nodes: give each a name")
        return self

    @property
    def devices(self) -> tuple[str, ...]:
        """Those of all its nodes."""
        return tuple(device for node in self.nodes for device in node.devices)

    @property
    def node_names(self) -> tuple[str, ...]:
        """The names of its nodes."""
        return tuple(node.name or self.name for node in self.nodes)

    def slots(self) -> tuple[WorkerSlot, ...]:
        """Its workers: DiT by node, then encode and VAE."""
        dit = [
            (device, name)
            for node, name in zip(self.nodes, self.node_names, strict=True)
            for device in node.devices
        ]
        slots = [
            WorkerSlot(phase=Phase.DIT, name=f"{Phase.DIT}-{i}", device=device, node=node)
            for i, (device, node) in enumerate(dit)
        ]
        encode = self.devices[:1] if self.encode is None else self.encode
        vae = self.devices[-1:] if self.vae is None else self.vae
        return (*slots, *_numbered(Phase.ENCODE, encode), *_numbered(Phase.VAE, vae))


def _numbered(phase: Phase, devices: Iterable[str]) -> Iterator[WorkerSlot]:
    for i, device in enumerate(devices):
        yield WorkerSlot(phase=phase, name=f"{phase}-{i}", device=device)


class ClusterFile(_Value):
    """All hosts of a cluster."""

    hosts: Annotated[tuple[Host, ...], Field(min_length=1)]
    """The machines that have workers."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what, names in (
            ("host", [host.name for host in self.hosts]),
            ("node", [name for host in self.hosts for name in host.node_names]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice:
                raise ValueError(f"{what} {twice} is there twice: give each a name of its own")
        return self

    def host(self, name: str) -> Host:
        """The host of that name.

        Raises:
            ConfigError: It is not in the file; the message lists those that are.
        """
        found = next((host for host in self.hosts if host.name == name), None)
        if found is None:
            known = ", ".join(host.name for host in self.hosts)
            raise ConfigError(
                f"host {name!r} is not in the cluster file, which has {known}: "
                "add it, or say with DDIT_HOST which of them this machine is"
            )
        return found


def load_cluster_file(path: Path) -> ClusterFile:
    """Read a cluster file.

    Raises:
        ConfigError: Not there, not YAML, or a field is wrong; the message names file, field, rule
            and cure.
    """
    return read_yaml(path, ClusterFile, what="cluster file", cure="docs/deploy.md has the format")
