from __future__ import annotations

import pytest
from fake_costs import COSTS
from worlds import a_world

from ddit_batch.errors import ConfigError
from ddit_batch.policy import POLICIES, Policy, make_policy, split_specs
from ddit_batch.policy.ddit import Ddit, Decode, Order, Promotion
from ddit_batch.policy.dp import Dp, Groups
from ddit_batch.policy.partitioned import Partitioned
from ddit_batch.policy.static import Static

SPECS = {
    "static": Static(costs=COSTS, dop=1),
    "static:dop=4": Static(costs=COSTS, dop=4),
    "dp": Dp(costs=COSTS),
    "dp:groups=fixed": Dp(costs=COSTS, groups=Groups.FIXED),
    "ddit": Ddit(costs=COSTS, order=Order.HUNGRY_FIRST),
    "ddit:order=waiting-first": Ddit(costs=COSTS, order=Order.WAITING_FIRST),
    "ddit:promotion=off,decode=group": Ddit(
        costs=COSTS, promotion=Promotion.OFF, decode=Decode.GROUP
    ),
    "partitioned": Partitioned(costs=COSTS),
    "partitioned:sizes=optimal": Partitioned(costs=COSTS),
    "partitioned:sizes=2/2/4,dops=1/2/4": Partitioned(costs=COSTS, sizes=(2, 2, 4), dops=(1, 2, 4)),
}


@pytest.mark.parametrize("spec", SPECS)
def test_spec_names_a_policy_and_its_options(spec: str) -> None:
    """What it leaves out is the default; a policy's name is a spec that makes it again."""
    policy: Policy = make_policy(spec, COSTS)

    assert policy == SPECS[spec]
    assert make_policy(policy.name, COSTS) == policy


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_needs_no_options_and_plans_nothing_for_nobody(name: str) -> None:
    """An empty cluster without jobs."""
    policy = make_policy(name, COSTS)

    assert policy.name.partition(":")[0] == name
    assert dict(policy.plan(a_world())) == {}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("best", r"policy 'best' is unknown: use one of ddit, dp, .*static"),
        ("", r"policy '' is unknown"),
        ("static:size=2", r"policy 'static:size=2' has no option 'size': use dop"),
        ("dp:dop=2", r"policy 'dp:dop=2' has no option 'dop': use groups"),
        ("static:dop=0", r"dop cannot be '0': use a whole number from 1"),
        ("static:dop=two", r"dop cannot be 'two'"),
        ("static:dop=", r"dop cannot be ''"),
        ("static:dop", r"'dop' is no option: write key=value"),
        ("static:", r"'' is no option: write key=value"),
        ("static:dop=1,dop=2", r"dop is given twice"),
        ("ddit:order=fifo", r"order cannot be 'fifo': use hungry-first or waiting-first"),
        ("partitioned:sizes=2/x", r"sizes cannot be '2/x': use optimal, or whole numbers"),
        ("partitioned:dops=", r"dops cannot be ''"),
    ],
)
def test_wrong_specs_are_refused_with_what_is_possible(spec: str, message: str) -> None:
    """The message names policies, options or values."""
    with pytest.raises(ConfigError, match=message):
        make_policy(spec, COSTS)


def test_list_of_specs_is_split_between_them() -> None:
    """A comma before a further option does not end a spec."""
    text = "dp,partitioned:sizes=2/2/4,dops=1/2/4,ddit:order=waiting-first, static:dop=4"

    assert split_specs(text) == (
        "dp",
        "partitioned:sizes=2/2/4,dops=1/2/4",
        "ddit:order=waiting-first",
        "static:dop=4",
    )
