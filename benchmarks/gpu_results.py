"""What ``gpu.py`` has measured: kept as JSON, shown as ``docs/gpu.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ddit_batch.job import Phase

COMMAND = "python benchmarks/gpu.py --write"
HEAD = f"""# On a GPU

Wan2.1 1.3B and 14B with random weights in bfloat16 (the VAE in float32), 81 frames at 480p
(832x480) and 720p (1280x720), guidance 5. `{COMMAND}` measures and writes this
page; it needs a GPU, 30 GB of disk and no network. `--help` has the parts that it can be done in,
and `--text-encoder` for UMT5-XXL.
"""
NOT_RUN = """
**Not run.** No GPU was available where this release was made. The test suite tries the measuring
itself without one, on a tiny model: `python benchmarks/gpu.py --tiny --device cpu`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Our loop and the plain one at one shape; without numbers if it did not fit."""

    model: str
    size: str
    shape: str
    ours_s: float | None = None
    """Median seconds of a step."""
    plain_s: float | None = None
    is_same: bool = False
    """Whether both gave the same latents, bit by bit."""

    @property
    def ratio(self) -> float | None:
        """Ours by the plain one."""
        return self.ours_s / self.plain_s if self.ours_s and self.plain_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMemory:
    """One phase of one model at one size; without numbers if it did not fit."""

    model: str
    size: str
    phase: Phase
    seconds: float | None = None
    """Of the phase; for DiT of a step."""
    peak_gib: float | None = None
    """None also where there is no GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that was measured on one device."""

    device: str
    date: str
    versions: dict[str, str]
    steps: tuple[Steps, ...] = ()
    memory: tuple[PhaseMemory, ...] = ()
    profiles: tuple[str, ...] = ()
    """Files that ``ddit profile`` wrote."""

    def has(self, model: str, size: str) -> bool:
        """Whether that was measured."""
        return any((steps.model, steps.size) == (model, size) for steps in self.steps)


def save(file: Path, results: Results) -> None:
    """Keep *results*."""
    file.write_text(json.dumps(asdict(results), indent=1), "utf-8")


def load(file: Path) -> Results | None:
    """What :func:`save` kept; None if it kept nothing yet."""
    if not file.exists():
        return None
    given = json.loads(file.read_text("utf-8"))
    memory = ({**row, "phase": Phase(row["phase"])} for row in given.pop("memory"))
    return Results(
        steps=tuple(Steps(**row) for row in given.pop("steps")),
        memory=tuple(PhaseMemory(**row) for row in memory),
        profiles=tuple(given.pop("profiles")),
        **given,
    )


def page(results: Results | None) -> str:
    """``docs/gpu.md``; None: nothing was measured."""
    return HEAD + (NOT_RUN if results is None else "\n".join(_sections(results)) + "\n")


def _sections(results: Results) -> Iterator[str]:
    software = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    yield f"\nMeasured on {results.device}, {results.date}; {software}.\n"
    yield "## Our loop beside the plain one\n"
    yield "Seconds of a step after the first: `phases.dit.denoise`, and a call of `WanPipeline`.\n"
    yield "| model | size | shape | ours | plain | ours / plain | same latents |"
    yield "|---|---|---|---|---|---|---|"
    for row in results.steps:
        ours, plain, ratio = map(_number, (row.ours_s, row.plain_s, row.ratio))
        same = "yes" if row.is_same else "no" if row.ours_s else ""
        yield f"| {row.model} | {row.size} | {row.shape} | {ours} | {plain} | {ratio} | {same} |"
    yield "\n## Memory by phase\n"
    yield "The most that a worker of that phase alone allocates, its weights included.\n"
    yield "| model | size | phase | seconds | peak GiB |"
    yield "|---|---|---|---|---|"
    for part in results.memory:
        seconds, peak = _number(part.seconds), _number(part.peak_gib)
        yield f"| {part.model} | {part.size} | {part.phase} | {seconds} | {peak} |"
    if results.profiles:
        yield "\n## Profiles\n"
        yield "As `ddit profile` wrote them. The text encoder was that of the memory table.\n"
        yield from (f"```yaml\n{text.rstrip()}\n```\n" for text in results.profiles)


def _number(value: float | None) -> str:
    """Four digits; a dash for what there is not."""
    return "-" if value is None else f"{value:.4g}"
