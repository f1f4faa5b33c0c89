"""Random faults on a live cluster, then the gates, then a report.

    python benchmarks/soak.py --minutes 20 --seed 1 [--interval-s 18] [--write FILE]

An embedded cluster of its own: Postgres, Valkey, two schedulers, an encode worker, three DiT
workers and a VAE worker, with a lease of 3 s and a checkpoint every 5 steps. Jobs of six kinds are
submitted all the time, and each kind has been run once before, with nothing in the way. The seed
decides which faults come when (``soak_plan.py``); what they meet, the cluster decides.

The gates: every line has ended, well; once; with the frames and the bytes of the undisturbed run,
under its user's name; no lost worker has cost more steps than a checkpoint interval, unless the
checkpoint itself was hit; and nothing runs any more. Exit code 1 if one does not hold. As root the
store is a small file system in memory, so that the disk can be full; else that is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from soak_faults import Cluster, Inflicted, inflict
from soak_plan import Fault, Planned, plan
from soak_report import CHECKPOINT_EVERY_STEPS, report, too_many_repeats

from ddit_batch.cli.prompts import load_prompts, submit_prompts
from ddit_batch.db.engine import make_engine
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import ClusterPlan

MARK = "DDIT_SOAK_HOME"
DIT_WORKERS = 3
STORE_KIB = 256 * 1024
AT_ONCE = 14
"""Jobs that are not done, at most, while faults come."""
FEED_EVERY_S = 0.5
PATIENCE_S = 300.0
"""After the last fault all jobs must have ended within this."""
SETTINGS = {
    "DDIT_CHECKPOINT_EVERY_STEPS": str(CHECKPOINT_EVERY_STEPS),
    "DDIT_GROUP_TIMEOUT_S": "3",
    "DDIT_STORE_PATIENCE_S": "2",
    # A soak hits a job more often than bad luck does.
    "DDIT_MAX_WORKER_LOSSES": "20",
    "DDIT_MAX_TIMEOUTS": "20",
    "DDIT_MAX_STORE_FAILURES": "20",
}
KINDS: dict[str, dict[str, object]] = {
    "tiny": {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 8},
    "short": {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 20},
    "wide": {"height": 96, "width": 128, "num_frames": 9, "num_inference_steps": 25},
    "long": {"height": 96, "width": 96, "num_frames": 17, "num_inference_steps": 150},
    "large": {"height": 128, "width": 128, "num_frames": 17, "num_inference_steps": 80},
    "larger": {"height": 160, "width": 160, "num_frames": 17, "num_inference_steps": 60},
}
PROFILE = """
name: soak
models: [tiny-wan]
provenance:
  device: none
  software: none
  date: "2026-11"
  samples: null
  sources: ["made up, so that groups of workers pay on any machine"]
  doubts: ["All of it."]
heads: 4
steps: 20
table:
  - {shape: 64x64x9, step_s: {1: 0.03, 2: 0.016, 3: 0.012}}
  - {shape: 128x128x17, step_s: {1: 0.06, 2: 0.031, 3: 0.022}}
encode: {seconds: 0.05, why: "made up"}
decode:
  assumed: {shape: 64x64x9, seconds: 0.05, why: "made up"}
"""


@dataclass(frozen=True, slots=True)
class Sums:
    """What tells two videos apart."""

    frames: str
    video: str


class Soak:
    """The jobs of one soak."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder
        self._batches: list[str] = []
        self._lines: dict[str, str] = {}
        """Kind by custom_id, of all lines but those of the undisturbed run."""
        self._expected: dict[str, Sums] = {}
        self._full_until = 0.0

    @property
    def lines(self) -> int:
        """How many have been submitted."""
        return len(self._lines)

    def run_undisturbed(self) -> None:
        """Each kind once, with nothing in the way."""
        out = self._submit({kind: kind for kind in KINDS})
        self.wait_done(within_s=180.0)
        self._expected = {kind: _sums(out, kind) for kind in KINDS}
        self._batches, self._lines = [], {}

    def feed(self) -> None:
        """Submit more, if there is room. Asks seldom."""
        if time.monotonic() < self._full_until:
            return
        self._full_until = time.monotonic() + FEED_EVERY_S
        if self.unfinished() <= AT_ONCE - len(KINDS):
            number = len(self._batches)
            self._submit({f"{kind}-{number}": kind for kind in KINDS})

    def unfinished(self) -> int:
        """Jobs that have not ended."""
        query = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
        return int(self.cluster.rows(query)[0][0])

    def wait_done(self, *, within_s: float) -> None:
        """Wait until all have ended."""
        deadline = time.monotonic() + within_s
        while self.unfinished():
            if time.monotonic() > deadline:
                left = self.cluster.rows(
                    "SELECT custom_id, state, waiting_because FROM job_status "
                    "WHERE finished_at IS NULL"
                )
                sys.exit(f"not done {within_s:g} s after the last fault: {left}")
            time.sleep(0.2)

    def broken_gates(self) -> list[str]:
        """What of the promises does not hold, in words."""
        rows = self.cluster.rows(
            "SELECT j.custom_id, j.state, j.failure_code, j.artifact_key, ("
            "    SELECT count(*) FROM job_events e "
            "    WHERE e.job_id = j.id AND e.to_state IN ('succeeded', 'failed', 'cancelled')"
            ") FROM jobs j WHERE j.batch_id = ANY(%s)",
            self._batches,
        )
        broken = []
        if sorted(row[0] for row in rows) != sorted(self._lines):
            broken.append(f"{len(rows)} jobs of {len(self._lines)} lines")
        for custom_id, state, code, key, ends in rows:
            if state != "succeeded":
                broken.append(f"{custom_id}: {state} ({code})")
            elif ends != 1:
                broken.append(f"{custom_id}: ended {ends} times")
            else:
                broken += self._wrong_files(custom_id, key)
        return broken

    def _wrong_files(self, custom_id: str, key: str) -> Iterator[str]:
        expected = self._expected[self._lines[custom_id]]
        out = self._folder / f"out-{custom_id.rpartition('-')[2]}"
        stored = (self.cluster.home.store / key).read_bytes()
        if hashlib.sha256(stored).hexdigest() != expected.video:
            yield f"{custom_id}: other bytes in the store"
        try:
            if _sums(out, custom_id) != expected:
                yield f"{custom_id}: other frames or bytes"
        except FileNotFoundError as exc:
            yield f"{custom_id}: not delivered: {exc.filename}"

    def _submit(self, lines: dict[str, str]) -> Path:
        number = len(self._batches)
        file, out = self._folder / f"{number}.jsonl", self._folder / f"out-{number}"
        file.write_text(
            "".join(
                json.dumps(
                    {"custom_id": custom_id, "prompt": f"a {kind} film", "seed": 7, **KINDS[kind]}
                )
                + "\n"
                for custom_id, kind in lines.items()
            ),
            "utf-8",
        )
        prompts = load_prompts(str(file), model="tiny-wan", overrides={}, models_folder=None)
        engine = make_engine(self.cluster.state.database_url)
        try:
            submitted = submit_prompts(engine, prompts, out=out, new=True)
        finally:
            engine.dispose()
        self._batches.append(str(submitted.batch_id))
        self._lines |= lines
        return out


def _sums(out: Path, name: str) -> Sums:
    manifest = json.loads((out / f"{name}.json").read_text("utf-8"))
    video = hashlib.sha256((out / f"{name}.mp4").read_bytes()).hexdigest()
    return Sums(frames=manifest["frames_sha256"], video=video)


@contextmanager
def running_cluster(folder: Path, *, has_small_disk: bool) -> Iterator[Cluster]:
    """A cluster for the length of the block; nothing of it is left."""
    home = Home(folder / "home")
    home.create()
    home.store.mkdir(exist_ok=True)
    if has_small_disk:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={STORE_KIB}k", "tmpfs", str(home.store)]
        subprocess.run(mount, check=True)
    profile = folder / "soak.yaml"
    profile.write_text(PROFILE, "utf-8")
    cluster_plan = ClusterPlan(
        dit_workers=DIT_WORKERS,
        schedulers=2,
        models=("tiny-wan",),
        torch_threads=1,
        devices=("cpu",),
        extra_env=(
            (MARK, str(home.path)),
            ("DDIT_PROFILES", str(profile)),
            ("DDIT_PROFILE_FIXED", "true"),
            *SETTINGS.items(),
        ),
    )
    try:
        start_cluster(home, cluster_plan, with_parent=True)
        try:
            yield Cluster(home)
        finally:
            stop_cluster(home)
    finally:
        if has_small_disk:
            subprocess.run(["umount", "--lazy", str(home.store)], check=True)


def left_over(home: Home) -> list[int]:
    """Processes of the cluster that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home.path):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def disturb(soak: Soak, planned: Sequence[Planned]) -> tuple[list[Inflicted], list[Planned]]:
    """Inflict the faults, one after the other; those done, and those that found nothing to hit."""
    begun_s = time.monotonic()
    done, left_out = [], []
    for each in planned:
        while time.monotonic() - begun_s < each.at_s:
            soak.feed()
            time.sleep(0.5)
        inflicted = inflict(soak.cluster, each)
        if inflicted is None:
            left_out.append(each)
        else:
            done.append(inflicted)
            print(f"{time.monotonic() - begun_s:7.1f} s  {each.fault}", file=sys.stderr)
    return done, left_out


def main() -> None:
    """Soak, check, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--interval-s", type=float, default=17.0, help="a fault in each")
    parser.add_argument("--write", type=Path, help="a file for the report")
    given = parser.parse_args()
    has_small_disk = os.geteuid() == 0
    planned = plan(minutes=given.minutes, interval_s=given.interval_s, seed=given.seed)
    if not has_small_disk:
        planned = tuple(each for each in planned if each.fault is not Fault.FULL_DISK)
    with tempfile.TemporaryDirectory(prefix="ddit-soak-") as name:
        folder = Path(name)
        with running_cluster(folder, has_small_disk=has_small_disk) as cluster:
            soak = Soak(cluster, folder)
            soak.run_undisturbed()
            cluster.feed = soak.feed
            done, left_out = disturb(soak, planned)
            soak.wait_done(within_s=PATIENCE_S)
            time.sleep(6.0)  # the users' files are made after the commit, if need be by another
            broken = [*soak.broken_gates(), *too_many_repeats(cluster, done)]
            command = f"python benchmarks/soak.py --minutes {given.minutes:g} --seed {given.seed}"
            head = f"`{command}`: {len(done)} faults, {soak.lines} jobs."
            text = report(cluster, done, left_out, head=head)
        remaining = left_over(cluster.home)
    print(text)
    if given.write:
        given.write.write_text(text, "utf-8")
    if remaining:
        broken.append(f"processes are left: {remaining}")
    if broken:
        sys.exit("\n".join(["gates that do not hold:", *broken]))
    print(f"all gates hold: {soak.lines} lines, each succeeded once, with the undisturbed bytes")


if __name__ == "__main__":
    main()
