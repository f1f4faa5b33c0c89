from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.policy.idle_workers import IdleWorkers
from ddit_batch.simulator import Cluster

MODELS = ("small", "large")
moves = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(MODELS), st.integers(1, 4)))


@given(st.lists(st.sampled_from([MODELS, MODELS[:1]]), min_size=12, max_size=12), moves)
def test_nodes_are_found_as_by_looking_at_each(
    models: list[tuple[str, ...]], asked: list[tuple[int, str, int]]
) -> None:
    """Whatever was taken and put back before, and whichever model was asked for first."""
    workers = [
        replace(worker, models=frozenset(own))
        for worker, own in zip(
            Cluster(gpus=12, gpus_per_node=3).workers(frozenset()), models, strict=True
        )
    ]
    idle = IdleWorkers(workers)
    for number, model, count in asked:
        worker = workers[number]
        change = idle.take if worker.name in idle.names else idle.put_back
        change([worker.name])

        room = {
            node: sum(
                w.node == node and w.name in idle.names and model in w.models for w in workers
            )
            for node in idle.nodes
        }
        enough = [(found, node) for node, found in room.items() if found >= count]
        assert idle.tightest(model, count) == (min(enough)[1] if enough else None)
        assert idle.widest(model) == max(room.values())
        assert [len(idle.on(node, model)) for node in room] == list(room.values())
