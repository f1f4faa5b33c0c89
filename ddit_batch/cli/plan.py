"""``ddit plan``: how many GPUs a file needs to be done by a time."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.duration import Duration
from ddit_batch.cli.group import Failed
from ddit_batch.cli.prompt_options import file_argument, format_option, model_option, set_option
from ddit_batch.cli.prompts import load_prompts
from ddit_batch.cli.simulation import (
    basis_lines,
    form_option,
    gpus_per_node_option,
    resize_option,
    start_option,
)
from ddit_batch.config import load_settings
from ddit_batch.cost_model import CostModel
from ddit_batch.durations import shown_duration
from ddit_batch.errors import ConfigError
from ddit_batch.formats import FormatName
from ddit_batch.job import JobId
from ddit_batch.policy import make_policy
from ddit_batch.profile import Profile, find_profile, known_profiles, make_cost_model
from ddit_batch.request import Request
from ddit_batch.simulator import Arrival, Cluster, Config, Workload, simulate
from ddit_batch.simulator.bound import bound
from ddit_batch.simulator.sizing import fewest_gpus

ASSUMED = "assumed: the GPUs are alike, all there from the start, and do nothing else; none is lost"


@command("ddit plan prompts.jsonl --by 2h --model wan2.1-t2v-14b")
@file_argument
@click.option("--by", "by_s", type=Duration(), required=True, help="Such as 45min, 2h or 1d12h.")
@model_option
@set_option
@format_option
@click.option(
    "--profile",
    "profile_name",
    help="A shipped profile's name, or a file; without it the shipped one that speaks for the "
    "model.",
)
@click.option("--policy", "policy_spec", default="ddit", show_default=True, metavar="SPEC")
@gpus_per_node_option
@click.option(
    "--max-gpus", type=click.IntRange(min=1), default=4096, show_default=True, help="Try no more."
)
@start_option
@form_option
@resize_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def plan(
    file: str,
    by_s: float,
    model: str,
    overrides: dict[str, str],
    format_name: FormatName | None,
    profile_name: str | None,
    policy_spec: str,
    gpus_per_node: int,
    max_gpus: int,
    start_s: float,
    form_s: float,
    resize_s: float,
    as_json: bool,
) -> None:
    """Say how many GPUs FILE (- is standard input) needs to be done by a time from its start.

    Simulates the file on more and more GPUs with the policy, and prints the fewest that are enough,
    when the last video is done with them, when with one less, and what that rests on.
    """
    prompts = load_prompts(
        file,
        model=model,
        overrides=overrides,
        models_folder=load_settings().models_folder,
        format_name=format_name,
    )
    sizing = _Sizing(
        workload=_workload(prompts.requests),
        profiles=_profiles(profile_name, prompts.requests),
        policy=policy_spec,
        gpus_per_node=gpus_per_node,
        config=Config(start_s=start_s, form_s=form_s, resize_s=resize_s),
    )
    gpus = sizing.fewest(by_s, max_gpus)
    basis = list(basis_lines(sizing.costs(gpus), sizing.workload.arrivals))
    answer = {
        "gpus": gpus,
        "makespan_s": sizing.makespan_s(gpus),
        "makespan_s_with_one_less": sizing.makespan_s(gpus - 1) if gpus > 1 else None,
    }
    if as_json:
        given = {"by_s": by_s, "jobs": len(prompts.requests), "policy": policy_spec}
        click.echo(json.dumps({**answer, **given, "basis": basis, "assumed": ASSUMED}))
        return
    text = f"{_gpus(gpus)}: done after {shown_duration(sizing.makespan_s(gpus))}"
    if gpus > 1:
        text += f" ({_gpus(gpus - 1)}: {shown_duration(sizing.makespan_s(gpus - 1))})"
    click.echo(text)
    for line in (*basis, ASSUMED):
        click.echo(line, err=True)


class _Sizing:
    """One file on any number of GPUs; every number is simulated once."""

    def __init__(
        self,
        *,
        workload: Workload,
        profiles: Sequence[Profile],
        policy: str,
        gpus_per_node: int,
        config: Config,
    ) -> None:
        self.workload = workload
        self._profiles = profiles
        self._policy = policy
        self._gpus_per_node = gpus_per_node
        self._config = config
        self._makespans_s: dict[int, float] = {}

    def costs(self, gpus: int) -> CostModel:
        """With the dops that a node of so many GPUs has room for."""
        return make_cost_model(self._profiles, max_dop=self._cluster(gpus).widest)

    def makespan_s(self, gpus: int) -> float:
        """When the last video is done, as simulated."""
        if gpus not in self._makespans_s:
            costs = self.costs(gpus)
            policy = make_policy(self._policy, costs)
            result = simulate(self.workload, costs, policy, self._cluster(gpus), self._config)
            self._makespans_s[gpus] = result.makespan_s
        return self._makespans_s[gpus]

    def fewest(self, by_s: float, max_gpus: int) -> int:
        """The least number that is enough.

        Raises:
            Failed: *max_gpus* are not enough.
        """
        if self._least_s(max_gpus) > by_s:
            raise Failed(
                f"no policy is done before {shown_duration(self._least_s(max_gpus))} with "
                f"{_gpus(max_gpus)}: allow more time, or more GPUs a node"
            )
        # More GPUs lower the bound, so the first number that it allows is found by halving.
        allowed = bisect_left(range(1, max_gpus), True, key=lambda n: self._least_s(n) <= by_s)
        found = fewest_gpus(self.makespan_s, by_s=by_s, at_least=allowed + 1, at_most=max_gpus)
        if found is None:
            raise Failed(
                f"{_gpus(max_gpus)}: done after {shown_duration(self.makespan_s(max_gpus))}: "
                "allow more time, more GPUs (--max-gpus), or another policy"
            )
        return found

    def _least_s(self, gpus: int) -> float:
        return bound(self.workload, self.costs(gpus), self._cluster(gpus)).makespan_s

    def _cluster(self, gpus: int) -> Cluster:
        return Cluster(gpus=gpus, gpus_per_node=self._gpus_per_node)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _workload(requests: Sequence[Request]) -> Workload:
    """All lines at once, as one batch."""
    return Workload(
        arrivals=tuple(
            Arrival(
                job_id=JobId(f"b-{request.line:06d}"),
                batch_id="b",
                arrived_s=0.0,
                model=request.model,
                shape=request.shape,
                steps=request.num_inference_steps,
                priority=request.priority,
            )
            for request in requests
        )
    )


def _profiles(name: str | None, requests: Sequence[Request]) -> list[Profile]:
    """The profile that is meant, or all that are shipped.

    Raises:
        ConfigError: It knows nothing of a model that a line asks for.
    """
    if name is None:
        return list(known_profiles().values())
    profile = find_profile(name)
    unknown = {r.model for r in requests if not profile.for_model().speaks_for(r.model)}
    if unknown:
        raise ConfigError(
            f"profile {name} speaks for {', '.join(profile.models)}, not for "
            f"{', '.join(sorted(unknown))}: name another, or leave --profile out"
        )
    return [profile]
