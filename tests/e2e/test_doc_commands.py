"""Every command line in README and docs does what its page says."""

from __future__ import annotations

import subprocess

import pytest
from cluster_tools import Cluster
from doc_lines import all_lines
from e2e_processes import clean_env, command

EXPECTED = {
    "run prompts.jsonl --out videos": 0,
    # a cluster that does not serve the model says so, instead of waiting for ever
    "run prompts.jsonl --model wan2.1-t2v-1.3b --out videos": 2,
    "submit bad.jsonl": 2,
    "plan prompts.jsonl --by 8h --model wan2.1-t2v-14b": 0,
    "simulate --workload trace.jsonl --profile cogvideox1.5-5b-l20 --gpus 4 --policy ddit "
    "--trace ddit-trace.json": 0,
    "simulate --workload poisson:load=0.85,jobs=500 --profile ddit-opensora-h800 --gpus 8 "
    "--policy static:dop=2,dp,ddit --warmup 0.1 --plot policies.png": 0,
    # the page's job is not in this database, and the command says so
    "explain b0123456789-000003": 1,
    "explain b0123456789-000003 --at 12:00:30": 1,
    "explain b0123456789-000003 --at 5min --json": 1,
    "sql --json 'SELECT * FROM batch_progress'": 0,
}
"""Line and exit code; lines that begin with ``sql`` and are not here end with 0."""

RUN_ELSEWHERE = {
    "up": "test_commands.py, which takes the cluster down again",
    "down": "test_commands.py",
    "profile --model tiny-wan --workers 2 -o my-gpu.yaml": "test_profile_command.py",
    "up --cluster cluster.yaml --model wan2.1-t2v-1.3b": "test_commands.py, with a model at hand",
    "worker --phase dit --name dit-0": "tests/deploy, with the variables that its page sets",
}


@pytest.mark.parametrize("line", [line for line in all_lines() if line not in RUN_ELSEWHERE])
def test_command_line_of_the_docs_does_what_it_should(session_cluster: Cluster, line: str) -> None:
    """Run as it stands there, in a folder with the files that it names."""
    folder = session_cluster.home.path.with_name("docs")
    folder.mkdir(exist_ok=True)
    (folder / "prompts.jsonl").write_text('{"custom_id": "docs", "prompt": "a cat"}\n')
    (folder / "trace.jsonl").write_text(
        '{"arrival_s": 60, "height": 768, "width": 432, "num_frames": 17}\n'
    )
    (folder / "bad.jsonl").write_text('{"prompt": "a cat", "height": 725}\n')
    expected = EXPECTED.get(line, 0 if line.startswith("sql ") else None)
    assert expected is not None, f"say in EXPECTED how `ddit {line}` should end"

    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {line}', str(command())],
        cwd=folder,
        env=clean_env(session_cluster.home.path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
