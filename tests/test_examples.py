import json
from pathlib import Path

from ddit_batch.model_config import known_models
from ddit_batch.prompt_file import parse, read

EXAMPLE = Path(__file__).parent.parent / "examples" / "vbench_31.jsonl"


def test_the_example_is_right_for_the_tiny_model() -> None:
    """The shipped example runs as it is: 31 requests, no problem, several shapes."""
    parsed = parse(
        read(str(EXAMPLE)),
        file_name=EXAMPLE.name,
        models=known_models(),
        default_model="tiny-wan",
    )

    assert parsed.problems == ()
    assert [r.custom_id for r in parsed.requests] == [f"vb31-{i:02d}" for i in range(31)]
    assert len({r.shape for r in parsed.requests}) >= 4
    assert any(r.negative_prompt for r in parsed.requests)


def test_the_example_is_small() -> None:
    """The example takes seconds, also on a CPU."""
    parsed = parse(
        read(str(EXAMPLE)), file_name="f", models=known_models(), default_model="tiny-wan"
    )

    for request in parsed.requests:
        assert min(request.height, request.width) >= 64
        assert max(request.height, request.width) <= 128
        assert 9 <= request.num_frames <= 17
        assert request.num_inference_steps <= 12


def test_the_example_shows_minimal_lines() -> None:
    """Some lines of the example show that a prompt is enough."""
    lines = [json.loads(line) for line in EXAMPLE.read_text().splitlines()]

    assert sum(line.keys() == {"custom_id", "prompt"} for line in lines) >= 3
