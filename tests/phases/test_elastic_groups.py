from __future__ import annotations
import itertools
from collections.abc import Iterator
from pathlib import Path
import pytest, torch
import torch.distributed as dist
from group_processes import Player, start_player
from tiny_model import MakeRequest, Model
from ddit_batch.model_config import Backend, ModelConfig, Parallelism
from ddit_batch.phases import handoff
from ddit_batch.phases.encode import encode

@pytest.fixture(scope="module")
def store() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

@pytest.fixture(scope="module")
def players(store) -> Iterator[list[Player]]:
    ps = [start_player(f"w{i}", store.port) for i in range(4)]
    yield ps
    for p in ps: p.process.kill(); p.process.join()

EPOCH = itertools.count(1)

@pytest.mark.parametrize("backend", list(Backend))
@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_script(players, backend, solver, config, tiny_folders, models, make_request):
    par = Parallelism(backend=backend)
    conf = config.model_copy(update={"parallelism": par})
    for p in [p.do("load", conf, tiny_folders[solver]) for p in players]: p.wait()
    reqs = {"A": make_request(num_inference_steps=10), "B": make_request(seed=8, prompt="waves", num_inference_steps=8)}
    emb = {k: handoff.embeddings_to_bytes(encode(models[solver].encoder, r)) for k, r in reqs.items()}
    import time
    t=time.time()
    def form(*ranks):
        e = next(EPOCH); names = tuple(f"w{r}" for r in ranks)
        return e, [players[r].aside("form", e, names, par) for r in ranks]
    def formed(p):
        for x in p[1]: x.wait()
        return p[0]
    w = players
    w[0].do("start", reqs["A"], emb["A"]).wait(); w[2].do("start", reqs["B"], emb["B"]).wait()
    a1, b1 = form(0,1), form(2,3)
    w[0].do("steps", 2).wait()
    a1, b1 = formed(a1), formed(b1)
    f1, f3 = w[1].do("follow", a1), w[3].do("follow", b1)
    w[0].do("change", a1, has_newcomers=True).wait(); w[2].do("change", b1, has_newcomers=True).wait()
    x, y = w[0].do("steps", 2), w[2].do("steps", 3)
    a2 = form(0,1,2,3)
    x.wait(), y.wait()
    ck = w[2].do("end").wait(); f3.wait()
    a2 = formed(a2)
    f2, f3 = w[2].do("follow", a2), w[3].do("follow", a2)
    w[0].do("change", a2, has_newcomers=True).wait()
    w[0].do("steps", 2).wait()
    w[0].do("change", 0, has_newcomers=False).wait()
    for f in (f1, f2, f3): f.wait()
    w[1].do("start", reqs["B"], emb["B"], ck).wait()
    b2 = formed(form(1,2)); f2 = w[2].do("follow", b2)
    x, y = w[0].do("steps", 2), w[1].do("change", b2, has_newcomers=True)
    x.wait(), y.wait(); w[1].do("steps", 2).wait()
    ck = w[0].do("end").wait()
    b3 = formed(form(1,3)); f3 = w[3].do("follow", b3)
    w[1].do("change", b3, has_newcomers=True).wait(); f2.wait()
    w[2].do("start", reqs["A"], emb["A"], ck).wait()
    x, y = w[1].do("steps", 3), w[2].do("steps", 2)
    x.wait(), y.wait()
    w[1].do("end").wait(); f3.wait()
    print("script", time.time()-t)
    assert torch.equal(w[2].do("latents").wait(), models[solver].latents(reqs["A"]))
    assert torch.equal(w[1].do("latents").wait(), models[solver].latents(reqs["B"]))
    for p in [p.do("close_groups") for p in players]: p.wait()
