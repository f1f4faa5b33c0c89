"""One job while it is simulated: what changes about it, and the view that a decision gets of it.

The engine is the only one who changes a record. Progress is computed from where the segment began,
so a step boundary at which nothing changes costs nothing; the view is made again only when the job
has changed or has done a step.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from ddit_batch.cost_model import Cost
from ddit_batch.errors import ConfigError
from ddit_batch.job import Incarnation, JobState, Phase, WorkerName
from ddit_batch.simulator.result import JobOutcome, Segment
from ddit_batch.simulator.workload import Arrival
from ddit_batch.snapshot import JobView, Whereabouts

BOUNDARY_TOLERANCE = 1e-6
"""Of a step: a boundary that is so near has been reached. Sums of floats are not exact."""


class Record:
    """A job, from its encode to its end."""

    __slots__ = (
        "arrival",
        "attempt",
        "begun_s",
        "checkpoint_step",
        "cost",
        "finished_s",
        "formed_s",
        "gpu_s",
        "granted_step",
        "group",
        "holder",
        "last_group",
        "last_view",
        "pending",
        "resizes",
        "seq",
        "started_s",
        "starvation_s",
        "state",
        "step",
        "step_s",
        "steps_from_s",
        "vae_s",
        "version",
        "view_until_s",
        "worker_losses",
    )

    def __init__(
        self, arrival: Arrival, seq: int, cost: Cost, *, decodes_elsewhere: bool = False
    ) -> None:
        self.arrival = arrival
        self.seq = seq
        self.cost = replace(cost, decode_s=0.0) if decodes_elsewhere else cost
        """What it costs the workers that denoise."""
        self.vae_s = cost.decode_s if decodes_elsewhere else 0.0
        """What decoding it costs a VAE worker."""
        self.state = JobState.ENCODED
        self.attempt = 1
        self.worker_losses = 0
        self.group: tuple[WorkerName, ...] = ()
        self.pending: tuple[WorkerName, ...] | None = None
        self.formed_s = 0.0
        """From when on the pending group can take effect."""
        self.last_group: tuple[WorkerName, ...] = ()
        self.holder: Incarnation | None = None
        self.granted_step = 0
        self.checkpoint_step = 0
        self.step = 0
        """Steps done when the segment began; outside ``denoising``, steps done."""
        self.begun_s = 0.0
        """When the segment began."""
        self.steps_from_s = 0.0
        """When its first step begins."""
        self.step_s = 0.0
        self.version = 0
        """Rises with every segment and every end of one: an event of an older one is void."""
        self.started_s = inf
        self.finished_s = inf
        self.gpu_s = 0.0
        self.starvation_s = 0.0
        self.resizes = 0
        self.last_view: JobView
        """What a decision saw of it last ..."""
        self.view_until_s = -inf
        """... which holds until then; -inf: there is none that holds."""

    @property
    def key(self) -> tuple[int, int]:
        """The order of waiting jobs: ``snapshot.order_key`` without a view."""
        return (-self.arrival.priority, self.seq)

    def begin_steps(self, now_s: float, overhead_s: float) -> None:
        """Go on from ``step`` with ``group``, after *overhead_s* in which nothing is done.

        Raises:
            ConfigError: The policy gave a dop that is not legal for the job.
        """
        dop = len(self.group)
        if dop not in self.cost.dops:
            raise ConfigError(
                f"{self.arrival.job_id} was given {dop} workers: legal for {self.arrival.model} "
                f"{self.arrival.shape} are {', '.join(map(str, self.cost.dops))}"
            )
        self.begun_s = now_s
        self.steps_from_s = now_s + overhead_s
        self.step_s = self.cost.at(dop)
        self.granted_step = self.step
        self.started_s = min(self.started_s, now_s)
        self.changed()

    def changed(self) -> None:
        """Forget the view, and every event that was meant for the job as it was."""
        self.version += 1
        self.view_until_s = -inf

    def forget_view(self) -> None:
        """Have the view made again; events stay valid."""
        self.view_until_s = -inf

    def tell(self, pending: tuple[WorkerName, ...] | None, formed_s: float) -> None:
        """Note the group that it shall have from a step boundary on; None: as it is.

        The boundary is the first one after *formed_s*.
        """
        self.pending = pending
        self.formed_s = formed_s
        self.view_until_s = -inf

    def segment(self, now_s: float) -> Segment:
        """What its group has done by *now_s*."""
        denoising = self.state is JobState.DENOISING
        return Segment(
            job_id=self.arrival.job_id,
            phase=Phase.DIT if denoising else Phase.VAE,
            workers=self.group,
            begun_s=self.begun_s,
            ended_s=now_s,
            overhead_s=min(self.steps_from_s, now_s) - self.begun_s,
            from_step=self.step,
            to_step=self.steps_done(now_s) if denoising else self.step,
        )

    def count(self, segment: Segment, *, widest: int) -> None:
        """Add up what a segment that has ended has cost; its last step is where it goes on."""
        self.gpu_s += segment.gpu_s
        if segment.phase is Phase.DIT:
            optimal_s = self.cost.at(self.cost.widest(min(self.cost.optimal_dop, widest)))
            lost_s = max(self.step_s - optimal_s, 0.0)
            self.starvation_s += (segment.to_step - segment.from_step) * lost_s
            self.step = segment.to_step

    def outcome(self) -> JobOutcome:
        """What has become of it, once it is done."""
        return JobOutcome(
            arrival=self.arrival,
            started_s=self.started_s,
            finished_s=self.finished_s,
            gpu_s=self.gpu_s,
            starvation_s=self.starvation_s,
            resizes=self.resizes,
        )

    def steps_done(self, now_s: float) -> int:
        """Steps done by *now_s*, while it is denoised."""
        if now_s <= self.steps_from_s:
            return self.step
        done = int((now_s - self.steps_from_s) / self.step_s + BOUNDARY_TOLERANCE)
        return min(self.step + done, self.arrival.steps)

    def boundary_after(self, now_s: float) -> float:
        """The next instant at which its group may change: before its first step, or after one.

        A boundary at *now_s* itself has passed: what is decided at an instant reaches nobody then.
        """
        if now_s < self.steps_from_s:
            return self.steps_from_s
        done = int((now_s - self.steps_from_s) / self.step_s + BOUNDARY_TOLERANCE)
        return self.steps_from_s + (done + 1) * self.step_s

    @property
    def last_boundary_s(self) -> float:
        """When its last step ends if its group stays as it is."""
        return self.steps_from_s + (self.arrival.steps - self.step) * self.step_s

    def view(self, now_s: float) -> JobView:
        """What a decision at *now_s* sees of it."""
        if now_s < self.view_until_s:
            return self.last_view
        denoising = self.state is JobState.DENOISING
        arrival = self.arrival
        self.last_view = JobView(
            job_id=arrival.job_id,
            batch_id=arrival.batch_id,
            state=self.state,
            priority=arrival.priority,
            seq=self.seq,
            model=arrival.model,
            shape=arrival.shape,
            steps=arrival.steps,
            step=self.steps_done(now_s) if denoising else self.step,
            attempt=self.attempt,
            dop=len(self.group) if denoising else 0,
            message=Whereabouts.NONE,
            group=self.group,
            holder=self.holder,
            worker_losses=self.worker_losses,
            cancel_requested=False,
            arrived_s=arrival.arrived_s,
            granted_step=self.granted_step,
            pending=self.pending,
            last_group=self.last_group,
        )
        if denoising:
            self.view_until_s = self.boundary_after(now_s) - BOUNDARY_TOLERANCE * self.step_s
        else:
            self.view_until_s = inf
        return self.last_view
