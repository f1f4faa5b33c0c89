"""The DDiT paper's set-up in the simulator: its baselines, its policy, our figures beside its own.

Writes the parts of ``docs/paper.md`` that stand between ``<!-- simulated: NAME -->`` and
``<!-- end: NAME -->``; the words around them, with every assumption, are the page's own. Everything
runs through the decision core that the live scheduler runs, and comes out the same everywhere.

    python benchmarks/paper.py --write docs/paper.md    all parts: about twenty minutes
    python benchmarks/paper.py --write docs/paper.md --parts scenarios,beside
    python benchmarks/paper.py --check docs/paper.md    exit 1 if the first part is stale: a minute
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paper_setups import (
    BASELINES,
    DDIT,
    FAST,
    OURS,
    PAPER_SETUPS,
    RATES,
    Setup,
    Tried,
    best,
    best_point,
    few,
    gain,
    least_at_b_s,
    mean_of,
    measured,
    p99_of,
    poisson,
    readings,
)

CLAIM_MEAN, CLAIM_P99 = 1.43, 1.44
"""Times that the paper's abstract claims over the best baseline."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def scenarios_part() -> list[str]:
    """Every policy in the paper's three scenarios."""
    rows = []
    for name, spec in {**BASELINES, **DDIT, **OURS}.items():
        cells = [name]
        for setup in PAPER_SETUPS.values():
            latency = measured(setup, spec)
            cells += [f"{latency.mean_s:.2f}", f"{latency.p99_s:.2f}"]
        rows.append(cells)
    if not OURS:
        rows.append(["elastic", *["not there yet"] * 6])
    head = ["seconds", *(f"{s}: {m}" for s in PAPER_SETUPS for m in ("mean", "p99"))]
    return table(head, rows)


def beside_part() -> list[str]:
    """Our reductions beside the paper's."""
    rows = []
    for scenario, metric, over, theirs in (
        ("0.25 a second", "p99", "best", "-12.88 %, over what is not said"),
        ("0.25 a second", "mean", "best", "not said"),
        ("0.5 a second", "p99", "static, dop 4", "-36.6 %"),
        ("0.5 a second", "mean", "static, dop 4", "-44.4 %"),
        ("0.5 a second", "p99", "best", "not said"),
        ("0.5 a second", "mean", "best", "not said"),
        ("bursts of 8, 0.25 a second", "p99", "best", "-20.7 %, over what is not said"),
        ("bursts of 8, 0.25 a second", "mean", "best", "-21.7 %, over what is not said"),
    ):
        setup, of = PAPER_SETUPS[scenario], mean_of if metric == "mean" else p99_of
        others = BASELINES if over == "best" else {over: BASELINES[over]}
        name, _ = best(setup, others, of)
        ours = [less(gain(setup, others, of, spec)) for spec in DDIT.values()]
        rows.append([scenario, metric, name, *ours, theirs])
    lines = table(["scenario", "of", "over", *DDIT, "the paper"], rows)
    head = ["", *(f"{word}: {name}" for word in ("mean", "p99") for name in DDIT)]
    for title, setups in OVER_STATIC_4.items():
        static_4 = {"static": "static:dop=4"}
        lines += [title, "", *table(head, [reductions(*one, static_4) for one in setups.items()])]
    return lines


OVER_STATIC_4 = {
    "Over static, dop 4, at rates that it can carry:": {
        f"{rate:g} a second": poisson(rate) for rate in (0.25, 0.3, 0.35, 0.375, 0.4)
    },
    "Over static, dop 4, at 0.5 a second, by the number of requests (all counted, 20 seeds):": {
        f"{jobs} requests": few(jobs, 0.5) for jobs in (10, 20, 30, 40, 50, 100, 200)
    },
}


def reductions(label: str, setup: Setup, over: Mapping[str, str]) -> list[str]:
    """A row: by how much both orders are below the best of some policies."""
    gains = [gain(setup, over, metric, d) for metric in (mean_of, p99_of) for d in DDIT.values()]
    return [label, *map(less, gains)]


def less(times: float) -> str:
    """``1.25`` times better as a reduction."""
    return f"{100 * (1 / times - 1):+.1f} %"


def ablations_part() -> list[str]:
    """What decoupling and promotion bring to p99, over the rates; the paper's at the end."""
    rows = []
    for rate in (0.25, 0.35, 0.45, 0.5, 0.55, 0.6, 0.7):
        cells = [f"{rate:.2f}"]
        for order in DDIT.values():
            for switch in ("decode=group", "promotion=off"):
                times = gain(poisson(rate), {"": f"{order},{switch}"}, p99_of, order)
                cells.append(less(times))
        rows.append(cells)
    rows.append(["the paper, up to", "-26.1 %", "-35.2 %", "", ""])
    head = [f"{name}: {what}" for name in DDIT for what in ("decoupling", "promotion")]
    return table(["p99 at rate", *head], rows)


def best_lines(tried: Sequence[Tried]) -> list[str]:
    """Where the gains are largest, and what the paper claims."""
    return [
        f"- best {word}: **{times:.2f} times**, {where}; the paper claims {claim}"
        for word, metric, claim in (("mean", mean_of, CLAIM_MEAN), ("p99", p99_of, CLAIM_P99))
        for times, where in (best_point(tried, metric),)
    ] + [""]


def sweep_part() -> list[str]:
    """The sweep over rates: its best point, the rates, what was possible."""
    tried = [Tried(f"{rate:.2f}", poisson(rate), FAST) for rate in RATES]
    least_s = least_at_b_s()
    limits = [best(one.setup, FAST, mean_of)[1] / least_s for one in tried]
    rates = ["rate", *(one.label for one in tried)]
    of_one = [
        [name, *(f"{gain_in_p99_over_best_in_mean(one.setup, spec):.2f}" for one in tried)]
        for name, spec in DDIT.items()
    ]
    return [
        *best_lines(tried),
        *tried_table(tried),
        f"With B workers from its arrival on a job takes {least_s:.2f} s in mean over the shapes.",
        "So a policy that stops at B can be better than the best baseline, in mean, at most by:",
        "",
        *table(rates, [["at most", *(f"{n:.2f}" for n in limits)]]),
        "If the baseline that is best in mean is held to both metrics, the gains in p99 are:",
        "",
        *table(rates, of_one),
    ]


def gain_in_p99_over_best_in_mean(setup: Setup, spec: str) -> float:
    """How many times better p99 is than that of the baseline with the least mean."""
    name, _ = best(setup, FAST, mean_of)
    return gain(setup, {name: FAST[name]}, p99_of, spec)


def readings_part() -> list[str]:
    """Everything else that was tried."""
    lines: list[str] = []
    for title, tried in readings():
        lines += [f"### {title}", "", *best_lines(tried), *tried_table(tried)]
    return lines


def tried_table(tried: Sequence[Tried]) -> list[str]:
    """One row for each set-up."""
    head = ["", "best mean, s", *DDIT, "best p99, s", *DDIT]
    return table(head, [one.row() for one in tried])


PARTS: Mapping[str, Callable[[], list[str]]] = {
    "scenarios": scenarios_part,
    "beside": beside_part,
    "rates": sweep_part,
    "readings": readings_part,
    "ablations": ablations_part,
}
QUICK = "scenarios"
"""What ``--check`` computes again."""


def filled(page: str, name: str, lines: Sequence[str]) -> str:
    """The page with *lines* as its part *name*."""
    start, end = f"<!-- simulated: {name} -->", f"<!-- end: {name} -->"
    if page.count(start) != 1 or end not in page.partition(start)[2]:
        sys.exit(f"part {name!r} has no place in the page: write {start} and {end} once")
    before, _, rest = page.partition(start)
    after = rest.partition(end)[2]
    return "\n".join([before + start, "", *lines, end + after])


def main() -> None:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--write", type=Path, metavar="PAGE")
    which.add_argument("--check", type=Path, metavar="PAGE")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all of %(default)s")
    arguments = parser.parse_args()
    if arguments.check:
        page = arguments.check.read_text("utf-8")
        if filled(page, QUICK, PARTS[QUICK]()) != page:
            sys.exit(f"{arguments.check} is stale: run {sys.argv[0]} --write {arguments.check}")
        return
    for name in arguments.parts.split(","):
        lines = PARTS[name]()
        page = arguments.write.read_text("utf-8")
        arguments.write.write_text(filled(page, name, lines), "utf-8")
        print(f"{name} written", flush=True)


if __name__ == "__main__":
    main()
