"""What the platform costs, and what its phases side by side gain, against a plain loop.

Runs the same 20 jobs of about two seconds of compute three times on this machine: as a batch
through the whole platform (Postgres, Valkey, Celery, one worker a phase, one torch thread each),
and as a plain loop of ``pipe(...)`` calls in one process with one thread and with two. Everything
is warm: models loaded, one job done before the clock starts. Prints the wall times and the ratios.

    python benchmarks/overhead.py [--jobs 20] [--keep]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ddit_batch.cli.prompts import Prompts, load_prompts, submit_prompts
from ddit_batch.db.engine import make_engine
from ddit_batch.db.status import batches
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.job import BatchId, JobState

MODEL_ARGUMENTS = ("--layers", "8", "--head-dim", "36")
LINE = {"height": 128, "width": 128, "num_frames": 17, "num_inference_steps": 12}

PLAIN_LOOP = """
import json, sys, time
import torch
from diffusers import WanPipeline
model, threads, lines = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
torch.set_num_threads(threads)
pipe = WanPipeline.from_pretrained(model)
pipe.set_progress_bar_config(disable=True)
def call(line):
    fields = {k: v for k, v in line.items() if k not in ("custom_id", "seed")}
    generator = torch.Generator("cpu").manual_seed(line["seed"])
    return pipe(**fields, generator=generator, guidance_scale=5.0, max_sequence_length=512)
call(lines[0])
begun = time.monotonic()
for line in lines:
    call(line)
print(time.monotonic() - begun)
"""


def main() -> None:
    """Run the three and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--bar", type=float, help="exit 1 if the ratio to one thread is above")
    arguments = parser.parse_args()
    lines = [
        {**LINE, "custom_id": f"job-{i:02d}", "prompt": f"a cat with {i} hats", "seed": i}
        for i in range(arguments.jobs)
    ]
    with tempfile.TemporaryDirectory(prefix="ddit-bench-") as folder:
        model = Path(folder) / "bench-wan"
        build = [sys.executable, "-m", "ddit_batch.phases.models.tiny", str(model)]
        subprocess.run([*build, *MODEL_ARGUMENTS], check=True)
        platform_s = time_platform(Path(folder), model, lines)
        one_s = time_loop(model, 1, lines)
        two_s = time_loop(model, 2, lines)
    print(
        f"{arguments.jobs} jobs, {LINE['width']}x{LINE['height']}x{LINE['num_frames']}, "
        f"{LINE['num_inference_steps']} steps"
    )
    print(f"platform, one worker a phase, 1 thread each  {platform_s:7.2f} s")
    print(
        f"plain loop, 1 thread                         {one_s:7.2f} s   "
        f"platform / loop = {platform_s / one_s:.3f}"
    )
    print(
        f"plain loop, 2 threads                        {two_s:7.2f} s   "
        f"platform / loop = {platform_s / two_s:.3f}"
    )
    if arguments.bar is not None and platform_s / one_s > arguments.bar:
        sys.exit(f"the ratio to one thread is above {arguments.bar}")


def time_platform(folder: Path, model: Path, lines: list[dict[str, object]]) -> float:
    """Seconds from submission to the last success, in a cluster that has done one job before."""
    home = Home(folder / "home")
    plan = ClusterPlan(dit_workers=1, models=(str(model),), torch_threads=1)
    state = start_cluster(home, plan, with_parent=True)
    engine = make_engine(state.database_url)
    try:
        warm = write_prompts(folder / "warm.jsonl", model, [{**lines[0], "custom_id": "warm"}])
        wait_done(engine, submit_prompts(engine, warm, out=folder / "out", new=False).batch_id)
        prompts = write_prompts(folder / "batch.jsonl", model, lines)
        begun_s = time.monotonic()
        wait_done(engine, submit_prompts(engine, prompts, out=folder / "out", new=False).batch_id)
        return time.monotonic() - begun_s
    finally:
        engine.dispose()
        stop_cluster(home)


def write_prompts(file: Path, model: Path, lines: list[dict[str, object]]) -> Prompts:
    """The lines as a file that has been read."""
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return load_prompts(str(file), model=str(model), overrides={}, models_folder=None)


def wait_done(engine: object, batch_id: BatchId) -> None:
    """Wait until every job of the batch has succeeded."""
    while not (batch := batches(engine, batch_id)[0]).is_done:  # type: ignore[arg-type]
        time.sleep(0.02)
    if batch.jobs.get(JobState.SUCCEEDED, 0) != batch.total:
        sys.exit(f"not all jobs succeeded: {dict(batch.jobs)}")


def time_loop(model: Path, threads: int, lines: list[dict[str, object]]) -> float:
    """Seconds of a plain loop in a process of its own."""
    command = [sys.executable, "-c", PLAIN_LOOP, str(model), str(threads), json.dumps(lines)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(run.stdout.split()[-1])


if __name__ == "__main__":
    main()
