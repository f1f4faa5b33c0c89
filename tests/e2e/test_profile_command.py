from __future__ import annotations

from pathlib import Path

from cluster_tools import Cluster
from e2e_processes import ddit

from ddit_batch.embedded.cluster import is_running
from ddit_batch.embedded.home import Home
from ddit_batch.job import Shape
from ddit_batch.model_config import known_models
from ddit_batch.profile import load_profile, make_cost_model


def test_profile_measures_the_cluster_at_hand(session_cluster: Cluster, tmp_path: Path) -> None:
    """The file has what the workers really took: more than nothing, less than the command."""
    file = tmp_path / "mine.yaml"
    shapes = ("32x32x5", "64x64x9")
    words = [word for shape in shapes for word in ("--shape", shape)]

    done = ddit(
        session_cluster.home.path,
        *("profile", "--steps", "2", "--repeats", "2", "--device", "test", *words, "-o", str(file)),
    )

    assert done.returncode == 0, done.stderr
    profile = load_profile(file)
    assert [str(row.shape) for row in profile.table] == list(shapes)
    assert profile.models == ("tiny-wan",)
    assert profile.heads == known_models()["tiny-wan"].heads
    assert (profile.provenance.device, profile.provenance.samples) == ("test", 2)
    cost = make_cost_model([profile]).cost("tiny-wan", Shape(64, 64, 9))
    assert all(0 < seconds < 60 for seconds in (*cost.step_s, cost.encode_s, cost.decode_s))
    state = session_cluster.rows(
        "SELECT DISTINCT state FROM jobs j JOIN batches b "
        "ON b.id = j.batch_id WHERE b.name LIKE 'profile%%'"
    )
    assert state == [("succeeded",)]


def test_profile_measures_groups_of_workers_of_its_own(tmp_path: Path) -> None:
    """One worker and two, from real groups; what it started is gone afterwards."""
    file, home = tmp_path / "mine.yaml", Home(tmp_path / "home")
    words = ("--shape", "32x32x5", "--steps", "4", "--repeats", "1", "--workers", "2")

    done = ddit(home.path, "profile", *words, "-o", str(file))

    assert done.returncode == 0, done.stderr
    (row,) = load_profile(file).table
    assert sorted(row.step_s) == [1, 2]
    assert not row.note
    assert "--form-s 0." in done.stderr
    assert not is_running(home)
