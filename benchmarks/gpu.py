"""What a GPU makes of Wan 2.1: our loop beside diffusers' own, memory by phase, and a profile.

    python benchmarks/gpu.py --write

Builds Wan2.1 1.3B and 14B with random weights (offline; 30 GB of disk for a while), and for each at
480p and 720p:

- **steps**: seconds of a step in ``phases.dit.denoise``, and in a plain call of ``WanPipeline``, in
  turn. The first step of each does not count, and both end when the device is idle.
- **memory**: the most that the phase had allocated, its weights included, as a worker of that phase
  alone would have. The text encoder is shallow unless ``--text-encoder`` builds UMT5-XXL.
- **profile**: ``ddit profile`` on a cluster with one DiT worker for each GPU. On a single GPU the
  workers of all three phases share it.

What was measured is kept in ``--results`` and not measured again, so that it can be done in parts
(``--models 1.3b --sizes 480p``). ``--write`` makes ``docs/gpu.md`` of it. ``--tiny --device cpu``
tries the measuring itself, in seconds, without a GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline
from gpu_device import Meter, device_name, free
from gpu_results import PhaseMemory, Results, Steps, load, page, save
from random_wan import SIZES, TINY, Size, build

from ddit_batch.errors import ConfigError, OutOfMemory
from ddit_batch.job import Phase, Shape
from ddit_batch.model_config import ModelConfig
from ddit_batch.phases.device import inference, pick_device, synchronize
from ddit_batch.phases.dit import Verdict, denoise
from ddit_batch.phases.encode import encode
from ddit_batch.phases.models.base import Denoiser, DenoisingState, Embeddings
from ddit_batch.phases.models.registry import family_of
from ddit_batch.phases.models.solver import load_solver
from ddit_batch.phases.vae import decode
from ddit_batch.phases.versions import versions
from ddit_batch.request import Request

BAR = 1.02
"""A step of our loop by one of the plain loop."""
PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One model on one device."""

    size: Size
    config: ModelConfig
    device: torch.device
    steps: int
    repeats: int

    def request(self, shape: Shape) -> Request:
        """A video of *shape*, guided as the model's default is."""
        usual = self.config.defaults
        return Request(
            custom_id="bench",
            line=1,
            model=self.config.name,
            prompt="a red fox runs over fresh snow at sunrise",
            negative_prompt="blurry",
            height=shape.height,
            width=shape.width,
            num_frames=shape.num_frames,
            num_inference_steps=self.steps,
            guidance_scale=usual.guidance_scale,
            seed=7,
            fps=usual.fps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """The same transformer in our loop and in the plain one, and what both are given."""

    denoiser: Denoiser
    pipeline: Any
    embeddings: Embeddings


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, and show all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--models", default=",".join(SIZES))
    parser.add_argument("--sizes", default="480p,720p")
    parser.add_argument("--steps", type=int, default=4, help="of a video; the first does not count")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each loop, in turn")
    parser.add_argument("--text-encoder", action="store_true", help="build and measure UMT5-XXL")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the measuring")
    parser.add_argument("--results", type=Path, default=Path("gpu-results.json"))
    parser.add_argument("--write", action="store_true", help="write docs/gpu.md")
    parser.add_argument("--bar", action="store_true", help=f"exit 1 if a ratio is above {BAR}")
    given = parser.parse_args(arguments)
    results = load(given.results)
    try:
        device = pick_device(given.device)
    except ConfigError as exc:
        if given.write and results is None:
            PAGE.write_text(page(None), "utf-8")
        sys.exit(f"nothing was measured: {exc}")
    results = results or Results(
        device=device_name(device), date=datetime.now(UTC).date().isoformat(), versions=versions()
    )
    for size in [TINY] if given.tiny else [SIZES[name] for name in given.models.split(",")]:
        names = [name for name, _ in size.shapes if given.tiny or name in given.sizes.split(",")]
        left = [name for name in names if not results.has(size.name, name)]
        if not left:
            continue
        with tempfile.TemporaryDirectory(prefix="ddit-gpu-") as folder:
            bench = Bench(
                size=size,
                config=size.model(Path(folder) / "pipeline"),
                device=device,
                steps=given.steps,
                repeats=given.repeats,
            )
            results = measured(bench, left, results, whole_text_encoder=given.text_encoder)
            if not given.no_profile:
                shapes = [shape for name, shape in size.shapes if name in left]
                text = run_profile(Path(folder), bench, shapes)
                results = replace(results, profiles=(*results.profiles, text))
        save(given.results, results)
    text = page(results)
    print(text, end="")
    if given.write:
        PAGE.write_text(text, "utf-8")
    worst = max((steps.ratio for steps in results.steps if steps.ratio), default=0.0)
    if given.bar and worst > BAR:
        sys.exit(f"our loop takes {worst:.3f} times what the plain loop takes, more than {BAR}")


def measured(
    bench: Bench, names: Sequence[str], results: Results, *, whole_text_encoder: bool
) -> Results:
    """*results* with those of one model at some of its sizes."""
    shapes = {name: shape for name, shape in bench.size.shapes if name in names}
    folder = Path(bench.config.source)
    build(folder, bench.size, device=bench.device, whole_text_encoder=whole_text_encoder)
    free(bench.device)
    embeddings, encoded = measure_encode(bench, next(iter(shapes.values())))
    free(bench.device)
    steps, stepped = measure_steps(bench, shapes, embeddings)
    free(bench.device)
    decoded = measure_decode(bench, shapes)
    free(bench.device)
    is_real = whole_text_encoder or bench.size is TINY
    return replace(
        results,
        steps=(*results.steps, *steps),
        memory=(*results.memory, *((encoded,) if is_real else ()), *stepped, *decoded),
    )


def measure_encode(bench: Bench, shape: Shape) -> tuple[Embeddings, PhaseMemory]:
    """The embeddings, on the CPU; and the memory, which no shape changes."""
    encoder = family_of(bench.config).load_encoder(bench.config, bench.config.source, bench.device)
    with Meter(bench.device) as meter:
        embeddings = encode(encoder, bench.request(shape))
    assert embeddings.negative is not None, "the models are guided"
    kept = Embeddings(prompt=embeddings.prompt.cpu(), negative=embeddings.negative.cpu())
    return kept, PhaseMemory(
        model=bench.size.name,
        size="any",
        phase=Phase.ENCODE,
        seconds=meter.seconds,
        peak_gib=meter.peak_gib,
    )


def measure_steps(
    bench: Bench, shapes: Mapping[str, Shape], embeddings: Embeddings
) -> tuple[list[Steps], list[PhaseMemory]]:
    """The two loops in turn, at each shape; and the most memory that ours had."""
    config = bench.config
    denoiser: Any = family_of(config).load_denoiser(config, config.source, bench.device)
    loops = Loops(
        denoiser=denoiser,
        pipeline=plain_pipeline(denoiser.transformer, config.source),
        embeddings=embeddings,
    )
    steps: list[Steps] = []
    memory: list[PhaseMemory] = []
    for name, shape in shapes.items():
        row = Steps(model=bench.size.name, size=name, shape=str(shape))
        peak = PhaseMemory(model=bench.size.name, size=name, phase=Phase.DIT)
        try:
            row, peak_gib = compare(bench, loops, row, shape)
            peak = replace(peak, seconds=row.ours_s, peak_gib=peak_gib)
        except (OutOfMemory, torch.OutOfMemoryError) as exc:
            print(f"{bench.size.name} {name}: {exc}", file=sys.stderr)
        steps.append(row)
        memory.append(peak)
        free(bench.device)
    return steps, memory


def compare(bench: Bench, loops: Loops, row: Steps, shape: Shape) -> tuple[Steps, float | None]:
    """*row* with the numbers of the two loops, and the most memory that ours had, in GiB."""
    request = bench.request(shape)
    ours_s, plain_s, peaks = [], [], []
    for _ in range(bench.repeats):
        with Meter(bench.device) as meter:
            state, step_s = our_loop(loops.denoiser, request, loops.embeddings)
        ours_s.append(step_s)
        peaks.append(meter.peak_gib)
        latents, step_s = plain_loop(loops.pipeline, request, loops.embeddings, bench.device)
        plain_s.append(step_s)
    found = replace(
        row,
        ours_s=statistics.median(ours_s),
        plain_s=statistics.median(plain_s),
        is_same=torch.equal(state.latents.float(), latents.float()),
    )
    return found, max(filter(None, peaks), default=None)


def our_loop(
    denoiser: Denoiser, request: Request, embeddings: Embeddings
) -> tuple[DenoisingState, float]:
    """The last state, and the seconds of a step after the first."""
    begun_s = 0.0

    def at_boundary(state: DenoisingState, step_s: float | None) -> Verdict:
        nonlocal begun_s
        if step_s is not None and state.step == 1:
            begun_s = time.perf_counter()
        return Verdict.CONTINUE

    state, _ = denoise(denoiser, denoiser.start(request, embeddings), at_boundary)
    return state, (time.perf_counter() - begun_s) / (request.num_inference_steps - 1)


def plain_pipeline(transformer: Any, source: str) -> Any:
    """Diffusers' pipeline around the same transformer, for its denoising loop alone."""
    pipeline = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=transformer,
        scheduler=load_solver("UniPCMultistepScheduler", source, None),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plain_loop(
    pipeline: Any, request: Request, embeddings: Embeddings, device: torch.device
) -> tuple[torch.Tensor, float]:
    """The latents, and the seconds of a step after the first, of one call of the pipeline."""
    begun_s = 0.0

    def after_step(_pipeline: Any, index: int, _timestep: Any, _kept: Any) -> dict[str, Any]:
        nonlocal begun_s
        if index == 0:
            synchronize(device)
            begun_s = time.perf_counter()
        return {}

    with inference("a plain call of the pipeline"):
        latents = pipeline(
            prompt_embeds=embeddings.prompt.to(device),
            negative_prompt_embeds=None
            if embeddings.negative is None
            else embeddings.negative.to(device),
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="latent",
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=[],
        ).frames
    synchronize(device)
    return latents, (time.perf_counter() - begun_s) / (request.num_inference_steps - 1)


def measure_decode(bench: Bench, shapes: Mapping[str, Shape]) -> list[PhaseMemory]:
    """Seconds and memory of decoding noise of each shape."""
    config = bench.config
    decoder = family_of(config).load_decoder(config, config.source, bench.device)
    rows: list[PhaseMemory] = []
    for name, shape in shapes.items():
        row = PhaseMemory(model=bench.size.name, size=name, phase=Phase.VAE)
        frames = 1 + (shape.num_frames - 1) // 4
        latents = torch.randn(1, 16, frames, shape.height // 8, shape.width // 8)
        try:
            for _ in range(2):  # the first time libraries choose their kernels
                with Meter(bench.device) as meter:
                    decode(decoder, latents)
            row = replace(row, seconds=meter.seconds, peak_gib=meter.peak_gib)
        except OutOfMemory as exc:
            print(f"{bench.size.name} {name}: {exc}", file=sys.stderr)
        rows.append(row)
        free(bench.device)
    return rows


def run_profile(folder: Path, bench: Bench, shapes: Sequence[Shape]) -> str:
    """What ``ddit profile`` writes of the model at these shapes."""
    file = folder / f"{bench.config.name}.yaml"
    file.write_text(bench.config.model_dump_json(), "utf-8")  # JSON is YAML
    out = folder / f"{bench.config.name}-measured.yaml"
    workers = max(1, torch.cuda.device_count()) if bench.device.type == "cuda" else 1
    words = [
        *("profile", "--model", str(file), "--home", str(folder / "home")),
        *(word for shape in shapes for word in ("--shape", str(shape))),
        *("--steps", str(bench.steps), "--repeats", "1", "--workers", str(workers)),
        *("--device", device_name(bench.device), "-o", str(out)),
    ]
    environment = {**os.environ, "DDIT_DEVICE": "cpu" if bench.device.type == "cpu" else ""}
    subprocess.run([sys.executable, "-m", "ddit_batch.cli", *words], check=True, env=environment)
    return out.read_text("utf-8").replace(bench.config.source, "random weights")


if __name__ == "__main__":
    main()
