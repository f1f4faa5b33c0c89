"""Policies side by side, live and simulated: does the simulator say what the platform does?

Builds a Wan pipeline of random weights (1,024 wide, two layers; shapes of 1,280 and 432 tokens),
starts a cluster with two DiT workers of one thread each, measures it by the code of ``ddit
profile``, and then runs the same ten jobs under each policy, submitted one by one at the times of a
seeded workload. Beside each figure stands what the simulator makes of that profile and workload.

Needs two idle cores, and about seven minutes.

    python benchmarks/live_policies.py [--policies static:dop=1,elastic] [--seed 17] [--bar]

What is compared: latency from submission to the committed video, and makespan from the first
submission to the last video. Both contain encode and decode: live by an encode and a VAE worker
that share the cores with the DiT workers; simulated as the seconds of the profile, the first
waiting for nobody, the second on one VAE worker, first come first served. The simulator also gets
what a start and the forming of a group took while the profile was measured.

The profile is held fixed. Each policy begins with an empty database, as its simulation does. Of the
ten jobs the seed makes some that find idle workers and some that queue; it was chosen among those
with which the simulated figures change hardly more than the steps, if all steps change by 4 %
(``stretched`` says how much): with others a tie may tip, and then no profile predicts anything.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from idleness import Others
from sqlalchemy import Engine, text

from ddit_batch import prompt_file
from ddit_batch.cli.crew import Crew, cluster_crew
from ddit_batch.cli.measuring import Task, make_profile
from ddit_batch.cli.prompts import Prompts, submit_prompts
from ddit_batch.db.engine import make_engine
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.job import Shape
from ddit_batch.measurement import Findings
from ddit_batch.model_config import ModelConfig, load_model_config
from ddit_batch.policy import make_policy, split_specs
from ddit_batch.profile import Profile, make_cost_model, profile_yaml
from ddit_batch.simulator import Arrival, Cluster, Config, Workload, simulate
from ddit_batch.simulator.generator import generate
from ddit_batch.simulator.report import percentile

WORKERS = 2
POLICIES = "static:dop=1,static:dop=2,ddit,elastic"
LARGE, SMALL = Shape(128, 128, 17), Shape(96, 96, 9)
BUILDER = Path(__file__).with_name("random_wan.py")
MODEL_CONFIG = """
name: bench-wan
family: wan
source: {folder}
heads: 8
max_sequence_length: 64
defaults:
  {{height: 128, width: 128, num_frames: 17, num_inference_steps: {steps}, guidance_scale: 1.0}}
limits: {{size_multiple: 8}}  # a token is one latent
dtypes: {{vae: bfloat16}}  # twice as fast as float32 on these cores
"""
BAR = 0.10
"""Deviation of a live figure from the predicted one, as a share of the live one."""
STRETCH = 0.04
METRICS = ("mean", "p99", "makespan")
PATIENCE = 5.0
"""A live run may take so many times what was predicted; then something is wrong."""
POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Measured workers and what they are to do."""

    crew: Crew
    model: ModelConfig
    profile: Profile
    profile_file: Path
    workload: Workload
    config: Config
    """What changes of groups cost."""
    others: Others
    profile_disturbed: float
    """Share of the cores that other programs took while the profile was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One policy, live or simulated; seconds."""

    mean: float
    p99: float
    makespan: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy."""

    policy: str
    live: Figures
    disturbed: float
    """Share of the cores that other programs took meanwhile."""
    predicted: Figures
    stretched: tuple[Figures, Figures]
    """Predicted if every step took 4 % less, or more."""

    def deviation(self, metric: str) -> float:
        """Predicted by live, less 1."""
        live: float = getattr(self.live, metric)
        predicted: float = getattr(self.predicted, metric)
        return predicted / live - 1.0


def main() -> None:
    """Measure, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=12, help="of each job")
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=2, help="of the profile's videos")
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--bar", action="store_true", help="exit 1 if a figure is off by over 10 %")
    given = parser.parse_args()
    begun_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="ddit-bench-") as folder,
        ready(Path(folder), given) as bench,
    ):
        rows = [compared(bench, spec) for spec in split_specs(given.policies)]
    took_s = time.monotonic() - begun_s
    if given.json:
        print(json.dumps(as_json(rows, bench, took_s)))
    else:
        show(rows, bench, took_s)
    worst = max(abs(row.deviation(metric)) for row in rows for metric in METRICS)
    if given.bar and worst > BAR:
        sys.exit(f"the prediction is off by {worst:.1%}, more than {BAR:.0%}")


@contextmanager
def ready(folder: Path, given: argparse.Namespace) -> Iterator[Bench]:
    """A cluster without a scheduler whose workers have been measured."""
    model_file = build_model(folder, steps=given.steps)
    home = Home(folder / "home")
    plan = ClusterPlan(
        dit_workers=WORKERS, schedulers=0, models=(str(model_file),), torch_threads=1
    )
    state = start_cluster(home, plan, with_parent=True)
    engine = make_engine(state.database_url)
    try:
        crew = cluster_crew(engine, home, state, plan.models)
        yield measured(crew, model_file, given, Others(*state.services.values()))
    finally:
        engine.dispose()
        stop_cluster(home)


def build_model(folder: Path, *, steps: int) -> Path:
    """A config file for a pipeline of random weights, which is built beside it."""
    pipeline = folder / "bench-wan"
    build = [sys.executable, str(BUILDER), str(pipeline)]
    subprocess.run(build, check=True, stderr=subprocess.DEVNULL)
    file = folder / "bench-wan.yaml"
    file.write_text(MODEL_CONFIG.format(folder=pipeline, steps=steps), "utf-8")
    return file


def measured(crew: Crew, model_file: Path, given: argparse.Namespace, others: Others) -> Bench:
    """All that the runs need, the profile measured."""
    model = load_model_config(model_file)
    task = Task(
        model=model,
        place=str(model_file),
        shapes=(LARGE, SMALL),
        steps=given.steps,
        repeats=given.repeats,
        stamp="benchmark",
    )
    profile, found = make_profile(
        crew, task, asked=(1, WORKERS), name="measured", device="", now=datetime.now(UTC)
    )
    file = model_file.with_name("measured.yaml")
    file.write_text(profile_yaml(profile), "utf-8")
    return Bench(
        crew=crew,
        model=model,
        profile=profile,
        profile_file=file,
        workload=arrivals(profile, model, given),
        config=changes(found),
        others=others,
        profile_disturbed=others.share(),
    )


def changes(found: Findings) -> Config:
    """What starting and forming took. What a switch costs is part of the steps that follow it."""
    return Config(
        start_s=statistics.median(found.start_s), form_s=statistics.median(found.form_s or (0.0,))
    )


def arrivals(profile: Profile, model: ModelConfig, given: argparse.Namespace) -> Workload:
    """The jobs: the load says how near to each other, by what was measured at dop 1."""
    spec = (
        f"poisson:load={given.load},jobs={given.jobs},steps={given.steps},"
        f"shapes={LARGE}/{SMALL},batches=each"
    )
    return generate(
        spec,
        costs=make_cost_model([profile]),
        model=model.name,
        steps=given.steps,
        gpus=WORKERS,
        dice=random.Random(given.seed),
    )


def compared(bench: Bench, spec: str) -> Row:
    """One policy, live beside simulated."""
    predicted = simulated(spec, bench.profile, bench)
    print(f"{spec}: about {predicted.makespan:.0f} s ...", file=sys.stderr)
    bench.others.share()
    live = run(bench, spec, patience_s=PATIENCE * predicted.makespan)
    return Row(
        policy=spec,
        live=live,
        disturbed=bench.others.share(),
        predicted=predicted,
        stretched=(
            simulated(spec, stretched(bench.profile, 1.0 - STRETCH), bench),
            simulated(spec, stretched(bench.profile, 1.0 + STRETCH), bench),
        ),
    )


def run(bench: Bench, spec: str, *, patience_s: float) -> Figures:
    """Run all jobs under a policy, each submitted when the workload says."""
    engine, leaderless = bench.crew.engine, bench.crew.leaderless
    assert leaderless is not None, "the cluster was started without a scheduler"
    arrivals = bench.workload.arrivals
    prompts = [job_prompts(arrival, bench.model, spec) for arrival in arrivals]
    empty(engine)
    with leaderless.led_by(spec, bench.profile_file) as check:
        begun_s = time.monotonic()
        for arrival, job in zip(arrivals, prompts, strict=True):
            time.sleep(max(0.0, begun_s + arrival.arrived_s - time.monotonic()))
            submit_prompts(engine, job, out=None, new=True)
        while not all_done(engine):
            check()
            if time.monotonic() - begun_s > patience_s:
                sys.exit(f"{spec}: not done after {patience_s:.0f} s")
            time.sleep(POLL_S)
    return read(engine)


def job_prompts(arrival: Arrival, model: ModelConfig, spec: str) -> Prompts:
    """A file of one line. Its prompt is of this policy's run alone: embeddings are cached."""
    line = {
        "custom_id": arrival.job_id,
        "prompt": f"a lighthouse in a storm, {arrival.job_id} under {spec}",
        "height": arrival.shape.height,
        "width": arrival.shape.width,
        "num_frames": arrival.shape.num_frames,
        "num_inference_steps": arrival.steps,
    }
    parsed = prompt_file.parse(
        json.dumps(line).encode(),
        file_name=arrival.job_id,
        models={model.name: model},
        default_model=model.name,
    )
    assert not parsed.problems, parsed.problems
    return Prompts(
        name=arrival.job_id,
        requests=parsed.requests,
        content_hash=parsed.content_hash,
        models=(model.name,),
    )


def empty(engine: Engine) -> None:
    """Forget all jobs, so that how busy it was before does not count."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE batches, decisions CASCADE"))


def all_done(engine: Engine) -> bool:
    """Whether every job has succeeded. Ends the program if one has failed."""
    with engine.connect() as connection:
        states = set(connection.scalars(text("SELECT DISTINCT state FROM jobs")))
    if states & {"failed", "cancelled"}:
        sys.exit(f"not all jobs succeeded: {', '.join(sorted(states))}")
    return states == {"succeeded"}


def read(engine: Engine) -> Figures:
    """What the database says of the run."""
    with engine.connect() as connection:
        times = connection.execute(
            text(
                "SELECT extract(epoch FROM created_at)::float8, "
                "extract(epoch FROM finished_at)::float8 FROM jobs"
            )
        ).all()
    return figures((begun_s, ended_s) for begun_s, ended_s in times)


def simulated(spec: str, profile: Profile, bench: Bench) -> Figures:
    """What the simulator predicts with the costs of *profile*."""
    costs = make_cost_model([profile], max_dop=WORKERS)
    cluster = Cluster(gpus=WORKERS, vae_workers=1)
    policy = make_policy(spec, costs)
    result = simulate(bench.workload, costs, policy, cluster, bench.config)
    return figures((job.arrival.arrived_s, job.finished_s) for job in result.jobs)


def figures(times: Iterable[tuple[float, float]]) -> Figures:
    """Of jobs that came and ended at these times."""
    both = list(times)
    latencies = sorted(ended_s - begun_s for begun_s, ended_s in both)
    return Figures(
        mean=statistics.mean(latencies),
        p99=percentile(latencies, 99),
        makespan=max(ended_s for _, ended_s in both) - min(begun_s for begun_s, _ in both),
    )


def stretched(profile: Profile, factor: float) -> Profile:
    """*profile* with all steps longer by *factor*."""
    rows = tuple(
        row.model_copy(update={"step_s": {dop: factor * s for dop, s in row.step_s.items()}})
        for row in profile.table
    )
    return profile.model_copy(update={"table": rows})


def show(rows: Sequence[Row], bench: Bench, took_s: float) -> None:
    """Print what was measured, and the table."""
    profile, config, jobs = bench.profile, bench.config, bench.workload.arrivals
    for row in profile.table:
        steps = ", ".join(f"dop {dop} {s:.3f} s" for dop, s in row.step_s.items())
        print(f"{row.shape}: a step {steps}")
    decodes = ", ".join(f"{row.shape} {row.seconds:.2f} s" for row in profile.decode.rows)
    print(f"encode {profile.encode.seconds:.2f} s; decode {decodes}")
    print(f"start {config.start_s:.3f} s, forming {config.form_s:.3f} s")
    print(f"{len(jobs)} jobs in {jobs[-1].arrived_s:.0f} s; seconds: live, predicted, deviation")
    print(f"{'':14}" + "".join(f"{metric:>27}" for metric in METRICS) + "   others")
    for row in rows:
        cells = (
            f"{getattr(row.live, m):9.2f}{getattr(row.predicted, m):9.2f}{row.deviation(m):+9.1%}"
            for m in METRICS
        )
        print(f"{row.policy:14}" + "".join(cells) + f"{row.disturbed:9.0%}")
    print(
        f"other programs took {bench.profile_disturbed:.0%} of the cores while the profile was "
        "measured, and during each run what the last column says"
    )
    print(
        f"if every step took {STRETCH:.0%} less or more, the predictions would move by "
        f"{most_moved(rows):.1%} at most; all in {took_s:.0f} s"
    )


def most_moved(rows: Iterable[Row]) -> float:
    """The largest relative change of a prediction when all steps change."""
    return max(
        abs(getattr(other, metric) / getattr(row.predicted, metric) - 1.0)
        for row in rows
        for other in row.stretched
        for metric in METRICS
    )


def as_json(rows: Sequence[Row], bench: Bench, took_s: float) -> dict[str, object]:
    """The same as an object."""
    return {
        "profile": bench.profile.model_dump(mode="json", exclude_defaults=True),
        "profile_disturbed": bench.profile_disturbed,
        "start_s": bench.config.start_s,
        "form_s": bench.config.form_s,
        "arrivals_s": [arrival.arrived_s for arrival in bench.workload.arrivals],
        "shapes": [str(arrival.shape) for arrival in bench.workload.arrivals],
        "policies": [
            {**asdict(row), "deviation": {m: row.deviation(m) for m in METRICS}} for row in rows
        ],
        "took_s": took_s,
    }


if __name__ == "__main__":
    main()
