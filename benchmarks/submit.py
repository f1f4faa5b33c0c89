"""What the front door costs: a large file submitted, and again, and looked at; a usual one checked.

Starts a Postgres of its own in a temporary folder, and measures whole processes of ``ddit``, from
their start to their end, as a user's clock does. Memory is the peak resident size of the process.
``ddit --help`` is there to compare with: it starts, and does nothing.

    python benchmarks/submit.py [--jobs 100000] [--file prompts.jsonl] [--bar]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ddit_batch.db.migrate import upgrade
from ddit_batch.db.reading import open_source
from ddit_batch.db.schema_version import check_schema
from ddit_batch.db.status import batches
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.postgres import running_postgres

BARS = {"submit": (15.0, 300.0), "status": (0.5, math.inf)}
"""Seconds and MB that --bar holds a figure against."""
USUAL_PROMPTS = 946
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one process took."""

    seconds: float
    cpu_s: float
    """What of that it computed: on a busy machine, the better figure to compare."""
    megabytes: float


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--file", type=Path, help=f"checked instead of {USUAL_PROMPTS} made lines")
    parser.add_argument("--bar", action="store_true", help="exit 1 if a figure is above its bar")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ddit-bench-") as folder:
        large = write_lines(Path(folder) / "large.jsonl", arguments.jobs)
        usual = arguments.file or write_lines(Path(folder) / "usual.jsonl", USUAL_PROMPTS)
        with running_postgres(Home(Path(folder) / "home")) as postgres:
            upgrade(postgres.service.url)
            environment = {**os.environ, "DDIT_DATABASE_URL": postgres.service.url}
            costs = {
                "submit": measure(environment, "submit", str(large)),
                "submit again": measure(environment, "submit", str(large)),
                "status": usually(environment, "status"),
                "status --json": usually(environment, "status", "--json"),
                "status, reading": time_reading(postgres.service.url),
                "sql": usually(environment, "sql", "SELECT * FROM batch_progress"),
                "help": usually(environment, "--help"),
                "dry run, usual": usually(environment, "submit", "--dry-run", str(usual)),
            }
    print(f"{arguments.jobs} lines; the usual file is {usual.name}")
    for name, cost in costs.items():
        memory = "" if math.isnan(cost.megabytes) else f"{cost.megabytes:7.0f} MB"
        print(f"{name:<16} {cost.seconds:7.2f} s {cost.cpu_s:7.2f} s CPU {memory}".rstrip())
    if arguments.bar:
        sys.exit(above_bar(costs))


def write_lines(file: Path, count: int) -> Path:
    """A file of *count* lines of usual length, each with some fields of its own."""
    with file.open("w") as lines:
        for number in range(count):
            line = {
                "custom_id": f"clip-{number:06d}",
                "prompt": f"A slow tracking shot of harbour number {number} at dawn, "
                "fishing boats, gulls, soft light over the water",
                "seed": number,
                "height": 64 + 16 * (number % 3),
                "metadata": {"scene": str(number % 50)},
            }
            lines.write(json.dumps(line) + "\n")
    return file


def usually(environment: Mapping[str, str], *words: str) -> Cost:
    """The median over several runs: one alone says little about half a second."""
    costs = [measure(environment, *words) for _ in range(REPEATS)]
    return Cost(
        seconds=statistics.median(cost.seconds for cost in costs),
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
        megabytes=max(cost.megabytes for cost in costs),
    )


def measure(environment: Mapping[str, str], *words: str) -> Cost:
    """Run ``ddit`` with *words*; its output is thrown away unless it fails."""
    begun_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ddit_batch.cli", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    talk = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"ddit {' '.join(words)} ended with {process.returncode}:\n{talk}")
    # In kilobytes on Linux. A new process inherits what this one has at its start: keep that low.
    return Cost(
        seconds=time.monotonic() - begun_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        megabytes=usage.ru_maxrss / 1024,
    )


def time_reading(database_url: str) -> Cost:
    """What ``ddit status`` asks of the database, without the start of its process."""
    seconds, cpu = [], []
    for _ in range(REPEATS):
        begun_s, cpu_begun_s = time.monotonic(), time.process_time()
        with open_source(database_url) as source:
            check_schema(source)
            batches(source)
        seconds.append(time.monotonic() - begun_s)
        cpu.append(time.process_time() - cpu_begun_s)
    return Cost(
        seconds=statistics.median(seconds), cpu_s=statistics.median(cpu), megabytes=math.nan
    )


def above_bar(costs: Mapping[str, Cost]) -> int:
    """1 if a figure is above its bar."""
    return int(
        any(
            costs[name].seconds > seconds or costs[name].megabytes > megabytes
            for name, (seconds, megabytes) in BARS.items()
        )
    )


if __name__ == "__main__":
    main()
