"""What ``ddit simulate`` and ``ddit plan`` share: options, costs, and what the costs rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import click

from ddit_batch.cost_model import Basis, CostModel
from ddit_batch.simulator import Arrival

gpus_per_node_option = click.option(
    "--gpus-per-node",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="No group of workers goes across nodes.",
)

start_option = click.option(
    "--start-s",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds from a job's being sent to workers to its first step there.",
)

form_option = click.option(
    "--form-s",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds that a group of several workers takes to form, while its job goes on as it was.",
)

resize_option = click.option(
    "--resize-s",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds for which a group stands still when it changes.",
)


def basis_lines(costs: CostModel, arrivals: Iterable[Arrival]) -> Iterator[str]:
    """How the seconds of the jobs are known, a line for each model, for people to read."""
    jobs = Counter((arrival.model, arrival.shape) for arrival in arrivals)
    for model in sorted({model for model, _ in jobs}):
        shapes = {shape for name, shape in jobs if name == model}
        steps = Counter(costs.cost(model, shape).basis for shape in shapes)
        decodes = Counter(costs.cost(model, shape).decode_basis for shape in shapes)
        encode = costs.cost(model, next(iter(shapes))).encode_basis
        yield (
            f"costs of {model} from profile {costs.profile_of(model).name}: "
            f"steps {_counted(steps)}; decode {_counted(decodes)}; encode {encode}"
        )


def _counted(bases: Counter[Basis]) -> str:
    """``measured``, or ``extrapolated for 2 of 3 shapes, measured for 1``."""
    if len(bases) == 1:
        return str(next(iter(bases)))
    (first, count), *others = sorted(bases.items())
    rest = [f"{basis} for {number}" for basis, number in others]
    return ", ".join([f"{first} for {count} of {bases.total()} shapes", *rest])
