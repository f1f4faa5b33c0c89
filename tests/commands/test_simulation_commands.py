from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ddit_batch.cli import main, plot
from ddit_batch.cli.duration import Duration
from ddit_batch.durations import shown_duration

WORKLOAD = ("--workload", "poisson:load=0.7,jobs=30", "--profile", "ddit-opensora-h800")


def ddit(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, words, input=stdin)


def simulated(*words: str) -> Result:
    return ddit("simulate", *WORKLOAD, *words)


def test_simulation_prints_a_column_for_each_policy_and_the_bound() -> None:
    """Data on stdout, what the costs rest on beside it."""
    done = simulated("--policy", "static:dop=2,ddit")

    assert done.exit_code == 0
    head = done.stdout.splitlines()[2]
    assert all(name in head for name in ("static:dop=2", "ddit", "bound"))
    assert {"mean latency", "makespan", "starvation"} <= {
        line.split("│")[1].strip() for line in done.stdout.splitlines() if "│" in line
    }
    assert "steps extrapolated for 2 of 3 shapes" in done.stderr


def test_same_seed_prints_the_same_bytes() -> None:
    """And another seed others."""
    words = ("--policy", "ddit,dp", "--json", "--seed")

    assert simulated(*words, "3").stdout == simulated(*words, "3").stdout
    assert simulated(*words, "3").stdout != simulated(*words, "4").stdout


def test_resizing_costs_what_is_said() -> None:
    """A second for each change cannot make it faster."""
    free, dear = (
        json.loads(simulated("--policy", "ddit", "--json", "--resize-s", cost).stdout)
        for cost in ("0", "1")
    )

    assert free["policies"][0]["mean_latency_s"] < dear["policies"][0]["mean_latency_s"]
    assert free["bound"] == dear["bound"]


def test_trace_of_arrivals_is_a_workload(tmp_path: Path) -> None:
    """From a file or from standard input."""
    line = {"height": 360, "width": 640, "num_frames": 51, "num_inference_steps": 30}
    text = "".join(json.dumps(line | {"arrival_s": at_s}) + "\n" for at_s in (0, 1, 2))
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    words = ("--profile", "ddit-opensora-h800", "--policy", "ddit", "--json", "--workload")

    from_file, piped = (
        ddit("simulate", *words, str(file)),
        ddit("simulate", *words, "-", stdin=text),
    )

    assert json.loads(from_file.stdout)["policies"] == json.loads(piped.stdout)["policies"]
    assert json.loads(piped.stdout)["jobs"] == 3


def test_wrong_workload_is_the_users_to_mend() -> None:
    """Exit code 2, and what can be written."""
    words = ("--profile", "ddit-opensora-h800", "--policy", "ddit", "--workload")

    wrong, missing = (
        ddit("simulate", *words, "poisson:jobs=5"),
        ddit("simulate", *words, "no.jsonl"),
    )

    assert (wrong.exit_code, missing.exit_code) == (2, 2)
    assert "say either load or rate" in wrong.stderr
    assert "no.jsonl: cannot be read" in missing.stderr


def test_pictures_and_traces_are_written(tmp_path: Path) -> None:
    """Of all policies; the trace opens in Perfetto."""
    picture, trace = tmp_path / "out.png", tmp_path / "out.json"

    done = simulated("--policy", "static,ddit", "--plot", str(picture), "--trace", str(trace))

    assert done.exit_code == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert "process_name" in names
    assert any("dop 4" in name for name in names)


def test_picture_without_matplotlib_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is simulated."""
    monkeypatch.setattr(plot, "find_spec", lambda _name: None)

    done = simulated("--policy", "ddit", "--plot", str(tmp_path / "out.png"))

    assert done.exit_code == 1
    assert "pip install 'ddit-batch[plot]'" in done.stderr


def test_picture_of_unknown_format_is_refused(tmp_path: Path) -> None:
    """With matplotlib's own list of formats."""
    done = simulated("--policy", "ddit", "--plot", str(tmp_path / "out.txt"))

    assert done.exit_code == 1
    assert "txt" in done.stderr
    assert "png" in done.stderr


PLAN = ("plan", "-", "--model", "wan2.1-t2v-14b", "--by")


def prompts(count: int) -> str:
    return "".join(json.dumps({"prompt": f"cat {n}"}) + "\n" for n in range(count))


def test_plan_finds_the_fewest_gpus() -> None:
    """One less is not enough."""
    done = json.loads(ddit(*PLAN, "6h", "--json", stdin=prompts(40)).stdout)

    assert done["makespan_s"] <= 6 * 3600 < done["makespan_s_with_one_less"]
    assert done["gpus"] > 1
    assert "wan2.1-14b" in done["basis"][0]


def test_plan_says_what_it_rests_on() -> None:
    """One sentence for the answer; how the costs are known and what is assumed beside it."""
    done = ddit(*PLAN, "1d", stdin=prompts(3))

    assert done.stdout.startswith("1 GPU: done after ")
    assert "decode assumed" in done.stderr
    assert "none is lost" in done.stderr


def test_plan_that_nobody_can_keep_is_refused() -> None:
    """No policy is done by then, or this one is not."""
    impossible = ddit(*PLAN, "10s", stdin=prompts(1))
    too_few = ddit(*PLAN, "1h", "--max-gpus", "2", stdin=prompts(40))

    assert (impossible.exit_code, too_few.exit_code) == (1, 1)
    assert "no policy is done before" in impossible.stderr
    assert "allow more time" in too_few.stderr


def test_plan_by_a_profile_of_another_model_is_refused() -> None:
    """Its seconds would be somebody else's."""
    done = ddit(*PLAN, "1h", "--profile", "hunyuanvideo-l20", stdin=prompts(1))

    assert done.exit_code == 1
    assert "not for wan2.1-t2v-14b" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90min", 5400), ("2h", 7200), ("1d12h", 129_600), ("1.5 h", 5400), ("2m", 120)],
)
def test_lengths_of_time_are_read(text: str, seconds: float) -> None:
    """As people write them."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "0s", "2 weeks", "1h30"])
def test_other_lengths_of_time_are_refused(text: str) -> None:
    """A number alone could be seconds or hours."""
    done = ddit(*PLAN, text, stdin=prompts(1))

    assert done.exit_code == 2
    assert "is no length of time: write 45s" in done.stderr


def test_lengths_of_time_are_shown_in_two_units() -> None:
    """No more digits than anybody wants."""
    shown = [shown_duration(seconds) for seconds in (0.5, 40, 65, 7500, 273_600)]

    assert shown == ["0.5 s", "40 s", "1 min 05 s", "2 h 05 min", "3 d 04 h"]
