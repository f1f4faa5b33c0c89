"""``ddit simulate``: what policies would make of a workload, and what nobody could beat."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import click
from rich.console import Console
from rich.table import Table

from ddit_batch.cli.command import command
from ddit_batch.cli.plot import check_plotting, plot
from ddit_batch.cli.simulation import (
    basis_lines,
    form_option,
    gpus_per_node_option,
    resize_option,
    start_option,
)
from ddit_batch.cost_model import CostModel
from ddit_batch.policy import make_policy, split_specs
from ddit_batch.profile import find_profile, make_cost_model
from ddit_batch.prompt_file import read
from ddit_batch.simulator import Cluster, Config, Result, Workload, simulate
from ddit_batch.simulator.bound import bound
from ddit_batch.simulator.chrome_trace import chrome_trace
from ddit_batch.simulator.generator import generate, is_spec
from ddit_batch.simulator.report import Report, Summary, summarise, warm_up_jobs
from ddit_batch.simulator.trace_file import read_trace

ROWS = {
    "mean_latency_s": "mean latency",
    "p50_latency_s": "p50",
    "p95_latency_s": "p95",
    "p99_latency_s": "p99",
    "max_latency_s": "max",
    "makespan_s": "makespan",
    "utilisation": "utilisation",
    "gpu_s": "GPU-seconds",
    "starvation_s": "starvation",
    "resizes": "resizes",
    "jain": "Jain index of batches",
}
"""The rows of the table, by the fields of ``Summary``."""


@command("ddit simulate --workload poisson:load=0.8 --profile ddit-opensora-h800 --policy ddit,dp")
@click.option(
    "--workload",
    "workload_text",
    required=True,
    metavar="FILE|SPEC",
    help="A file (- is standard input) or a spec, as above; a spec's other options are steps=50 "
    "and shapes=WIDTHxHEIGHTxFRAMES[*WEIGHT][/...].",
)
@click.option(
    "--profile", "profile_name", required=True, help="Name of a shipped profile, or a file."
)
@click.option("--gpus", type=click.IntRange(min=1), default=8, show_default=True)
@gpus_per_node_option
@click.option(
    "--policy",
    "policies",
    required=True,
    metavar="SPEC[,...]",
    help="One or several: static:dop=4,ddit:order=waiting-first; the first is compared with.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of a spec's dice.")
@click.option(
    "--vae-workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Workers beside the GPUs that decode; 0: the GPUs do.",
)
@start_option
@form_option
@resize_option
@click.option(
    "--warmup",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of the arrivals, the first, that latencies do not count.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw latency curves and a lane for each GPU (PNG, PDF or SVG).",
)
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a trace for chrome://tracing or ui.perfetto.dev.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def simulate_command(
    workload_text: str,
    profile_name: str,
    gpus: int,
    gpus_per_node: int,
    policies: str,
    seed: int,
    vae_workers: int,
    start_s: float,
    form_s: float,
    resize_s: float,
    warmup: float,
    plot_file: Path | None,
    trace_file: Path | None,
    as_json: bool,
) -> None:
    """Simulate a workload under one policy or several, side by side.

    Drives the code that decides in a live cluster. The last column is a bound that no policy can
    beat, whatever it knows of the future. The same seed prints the same bytes.

    \b
    --workload poisson:load=0.85,jobs=2000  one by one, each its own batch
    --workload poisson:rate=0.5,batches=4   half a job a second, of four batches
    --workload bursts:load=0.85,size=20     twenty at an instant, each time a batch
    --workload at-once:jobs=1200            all at the start, one batch
    --workload trace.jsonl                  lines with height, width, num_frames,
                                            and arrival_s, batch, deadline_s
    """
    if plot_file:
        check_plotting()
    cluster = Cluster(gpus=gpus, gpus_per_node=gpus_per_node, vae_workers=vae_workers)
    config = Config(start_s=start_s, form_s=form_s, resize_s=resize_s)
    profile = find_profile(profile_name)
    costs = make_cost_model([profile], max_dop=cluster.widest)
    workload = _workload(
        workload_text,
        costs=costs,
        model=profile.models[0],
        steps=profile.steps,
        gpus=gpus,
        seed=seed,
    )
    first = warm_up_jobs(len(workload.arrivals), warmup)
    chosen = [make_policy(spec, costs) for spec in split_specs(policies)]
    results = [simulate(workload, costs, policy, cluster, config) for policy in chosen]
    if not results:
        raise click.UsageError("--policy names none")
    report = Report(
        jobs=len(workload.arrivals),
        counted=len(workload.arrivals) - first,
        summaries=tuple(summarise(result, costs, cluster, first=first) for result in results),
        bound=bound(workload, costs, cluster, first=first),
    )
    if trace_file:
        _write_trace(trace_file, results, cluster)
    if plot_file:
        plot(plot_file, results, cluster, first=first)
    if as_json:
        given = {"workload": workload_text, "profile": profile_name, "gpus": gpus, "seed": seed}
        workers = {"gpus_per_node": gpus_per_node, "vae_workers": vae_workers}
        changes = {"start_s": start_s, "form_s": form_s, "resize_s": resize_s}
        click.echo(json.dumps({**given, **workers, **changes, **report.to_json()}))
        return
    Console().print(_table(report))
    for line in basis_lines(costs, workload.arrivals):
        click.echo(line, err=True)


def _workload(
    text: str, *, costs: CostModel, model: str, steps: int, gpus: int, seed: int
) -> Workload:
    """What ``--workload`` means: a spec, or a file."""
    if is_spec(text):
        dice = Random(seed)  # noqa: S311 -- the same every time, on purpose
        return generate(text, costs=costs, model=model, steps=steps, gpus=gpus, dice=dice)
    return read_trace(read(text), file=text, model=model, steps=steps)


def _write_trace(file: Path, results: list[Result], cluster: Cluster) -> None:
    workers = tuple((w.name, w.node) for w in cluster.workers(frozenset()))
    file.write_text(json.dumps(chrome_trace(results, workers)), "utf-8")


def _table(report: Report) -> Table:
    """A row for each number, a column for each policy; the bound last."""
    first = report.summaries[0]
    title = f"{report.jobs} jobs"
    if report.counted < report.jobs:
        title += f", latencies of the last {report.counted}"
    if len(report.summaries) > 1:
        title += f"; 2.00x is twice as good as {first.policy}"
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for one in report.summaries:
        table.add_column(one.policy, justify="right", overflow="fold")
    table.add_column("bound", justify="right")
    for field, title in ROWS.items():
        cells = [_cell(one, field, first) for one in report.summaries]
        least_s = getattr(report.bound, field, None)
        table.add_row(title, *cells, "" if least_s is None else _seconds(least_s))
    return table


def _cell(one: Summary, field: str, first: Summary) -> str:
    value = getattr(one, field)
    if field == "utilisation":
        return f"{value:.1%}"
    if field in {"gpu_s", "resizes"}:
        text = f"{value:,.0f}"
    elif field == "jain":
        return f"{value:.3f}"
    else:
        text = _seconds(value)
    ratio = one.ratios(first).get(field)
    return text if one is first or ratio is None else f"{text} {ratio:.2f}x"


def _seconds(value: float) -> str:
    """Four digits or more."""
    digits = 2 if value < 100 else 1 if value < 10_000 else 0  # noqa: PLR2004 -- powers of ten
    return f"{value:,.{digits}f} s"
