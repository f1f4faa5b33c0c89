from __future__ import annotations

import json

import pytest
from input_files import answers, cases, read

from ddit_batch.formats import format_of
from ddit_batch.model_config import known_models
from ddit_batch.prompt_file import parse

BATCH = "batch.jsonl"

A_CLIENTS_FILE = """\
{"custom_id": "oa-0", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "In a still frame, a stop sign", "size": "832x480", "seconds": "4"}}
{"custom_id": "oa-1", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "a toilet, frozen in time", "size": "832x480", "seconds": "4"}}
{"custom_id": "oa-2", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "a laptop, frozen in time", "size": "832x480", "seconds": "4"}}
{"custom_id": "oa-3", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "A tranquil tableau of alley", "size": "832x480", "seconds": "4"}}
{"custom_id": "oa-4", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "A tranquil tableau of bar", "size": "832x480", "seconds": "4"}}
{"custom_id": "oa-5", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "A tranquil tableau of barn", "size": "832x480", "seconds": "4"}}
{"custom_id": "oa-6", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "A tranquil tableau of bathroom", "size": "832x480", "seconds": "4"}}
{"custom_id": "oa-7", "method": "POST", "url": "/v1/videos", "body": {"model": "wan2.1-t2v-1.3b", "prompt": "A tranquil tableau of bedroom", "size": "832x480", "seconds": "4"}}
"""  # noqa: E501 -- the file as it is
"""As a client of OpenAI's API writes it; the prompts are VBench's (Apache-2.0)."""

WRONG_LINES = r"""
{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}
    url: "/v1/chat/completions": is not served: only videos are made here: write "/v1/videos"
{"custom_id": "a", "method": "POST", "url": ["/v1/videos"], "body": {"prompt": "a cat"}}
    url: [...]: is not served: only videos are made here: write "/v1/videos"
{"custom_id": "a", "method": "GET", "url": "/v1/videos", "body": {"prompt": "a cat"}}
    method: "GET": must be POST: write "POST"
{"custom_id": "a", "method": {}, "url": "/v1/videos", "body": {"prompt": "a cat"}}
    method: {}: must be POST: write "POST"
{"custom_id": "a", "method": "POST", "url": "/v1/videos"}
    body: is missing: add "body": {"prompt": "..."}
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": null}
    body: is missing: add "body": {"prompt": "..."}
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": ["a cat"]}
    body: must be an object, not an array: write {"prompt": "..."}
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": "a cat"}
    body: must be an object, not a string: write {"prompt": "..."}
{"body": {"prompt": "a cat"}}
    - custom_id: is missing: add "custom_id": "..."
    - method: is missing: add "method": "POST"
    - url: is missing: add "url": "/v1/videos"
{"custom_id": "a/b", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a cat"}}
    custom_id: "a/b": must not start with a dot or contain /, \ or control characters, because
    the video is named for it: use "a_b"
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a cat"}, "seed": 1}
    seed: stands in the wrong place: put it into body
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a cat"}, "steps_": 1}
    steps_: is no field of a line: use only custom_id, method, url, body
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {}}
    body.prompt: is missing: add "prompt": "..." to body
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": null}}
    body.prompt: is missing: add "prompt": "..." to body
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"text": "a cat"}}
    body.text: is no field of body: did you mean prompt?
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"text": "a", "prompt": "b"}}
    body.text: is no field of body: did you mean prompt?
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": ""}}
    body.prompt: "": is empty: say what the video shows
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "url": "x"}}
    body.url: stands in the wrong place: put it beside body
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "n": 2}}
    body.n: is no field of body: write one line for each video, each with its own seed
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "input_reference": "x"}}
    body.input_reference: is no field of body: leave it out: videos are made from text only
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "quality": 2}}
    body.quality: is no field of body: use only model, prompt, negative_prompt, height, width,
    num_frames, num_inference_steps, guidance_scale, seed, fps, priority, metadata, size, seconds
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "model": "sora-2"}}
    body.model: "sora-2": is unknown: name one of large, small
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seed": "1"}}
    body.seed: "1": must be a whole number, not a string: write 1 without quotes
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "size": "64x65"}}
    body.size: "64x65": height must be a multiple of 16: use 64 or 80
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "size": "1280x720"}}
    body.size: "1280x720": width must be 16 to 736 for small: use 736
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "size": "65x0"}}
    - body.size: "65x0": width must be a multiple of 16: use 64 or 80
    - body.size: "65x0": height must be 16 to 736 for small: use 16
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "size": "64*64"}}
    body.size: "64*64": must be a width and a height in pixels, such as "832x480": write "64x64"
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "size": "720p"}}
    body.size: "720p": must be a width and a height in pixels, such as "832x480"
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "size": [64, 64]}}
    body.size: [...]: must be a width and a height in pixels, such as "832x480"
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "size": "64x64", "width": 64}}
    body.size: says the same as body.width: keep one of them
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": "four"}}
    body.seconds: "four": must be a number of seconds: write it as "4" or 4
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": true}}
    body.seconds: true: must be a number of seconds: write it as "4" or 4
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": "0"}}
    body.seconds: "0": must be more than 0, and finite
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": NaN}}
    body.seconds: NaN: must be more than 0, and finite
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": 1e400}}
    body.seconds: Infinity: must be more than 0, and finite
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": 60}}
    body.seconds: 60: makes more than 81 frames at 8 fps, the most that small takes: use 10.12 or less
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": 1e300}}
    body.seconds: 1e+300: makes more than 81 frames at 8 fps, the most that small takes: use 10.12 or less
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": 1, "num_frames": 9}}
    body.seconds: says the same as body.num_frames: keep one of them
{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a", "seconds": 60, "fps": 0}}
    body.fps: 0: must be 1 to 120: use 1
{"prompt": "a cat"}
    is a line of the plain form, in a file of OpenAI Batch lines: put lines of the two forms into
    two files
"""  # noqa: E501 -- lines as users write them
"""Lines of an OpenAI Batch file, each with what is said about it."""


def line(custom_id: str = "a", **body: object) -> str:
    """A right line with *body* besides the prompt."""
    return json.dumps(
        {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/videos",
            "body": {"prompt": "a cat", **body},
        }
    )


def test_a_clients_file_is_taken_as_it_is() -> None:
    """Eight lines of another service's clients are eight requests."""
    data = A_CLIENTS_FILE.encode()

    result = parse(
        data,
        file_name="openai_batch_8.jsonl",
        models=known_models(),
        default_model="tiny-wan",
        lines=format_of("openai_batch_8.jsonl", data),
    )

    assert result.problems == ()
    assert [request.custom_id for request in result.requests] == [f"oa-{i}" for i in range(8)]
    assert result.requests[3].prompt == "A tranquil tableau of alley"
    shapes = {(r.model, r.width, r.height, r.num_frames, r.fps) for r in result.requests}
    assert shapes == {("wan2.1-t2v-1.3b", 832, 480, 65, 16)}


def test_the_body_may_have_every_field_of_ours() -> None:
    """Extensions need no other format, and mean the same as on a plain line."""
    fields = {
        "model": "large",
        "negative_prompt": "rain",
        "height": 704,
        "width": 1280,
        "num_frames": 5,
        "num_inference_steps": 3,
        "guidance_scale": 0.5,
        "seed": 7,
        "fps": 12,
        "priority": 2,
        "metadata": {"scene": "1"},
    }
    plain = json.dumps({"custom_id": "a", "prompt": "a cat", **fields})

    assert read(line(**fields), BATCH) == read(plain, BATCH)


@pytest.mark.parametrize("wrong, expected", cases(WRONG_LINES))  # noqa: PT006 -- as the table reads
def test_a_wrong_line_is_answered_with_rule_and_cure(wrong: str, expected: list[str]) -> None:
    """Each kind of wrong line has its own answer, in the words of the file."""
    assert answers(f"{line('first')}\n{wrong}\n", BATCH) == [f"2: {answer}" for answer in expected]


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"),
    [
        ("4", 16, 65),
        (4, 16, 65),
        (4.0, 16, 65),
        ("5", 16, 81),
        (1, 8, 9),
        (5, 10, 49),  # 50 frames: 49 is nearer than 53
        (5.1, 10, 53),  # 51 frames: as far from 49 as from 53
        ("0.01", 16, 1),
        (10.24, 8, 81),
    ],
)
def test_seconds_become_the_nearest_number_of_frames(
    seconds: object, fps: int, frames: int
) -> None:
    """The model's frames come in fours plus one; the length in seconds is met as well as can be."""
    (request,) = read(line(seconds=seconds, fps=fps), BATCH).requests

    assert (request.num_frames, request.fps) == (frames, fps)


@pytest.mark.parametrize("seconds", [8, "10.12"])
def test_the_longest_that_an_answer_names_is_taken(seconds: object) -> None:
    """Whoever follows the advice about seconds is not sent back again."""
    assert answers(line(seconds=seconds), BATCH) == []


def test_size_counts_width_first() -> None:
    """A size is written as people say it: 96 wide and 64 high."""
    (request,) = read(line(size="96x64"), BATCH).requests

    assert (request.width, request.height) == (96, 64)


def test_a_repeated_custom_id_is_answered_as_in_any_file() -> None:
    """Answers to a batch are found by custom_id, so it names one line only."""
    assert answers(f"{line('x')}\n{line('x')}", BATCH) == [
        '2: custom_id: "x": is already used on line 1: give each line its own'
    ]


def test_an_openai_line_in_a_plain_file_is_answered_once() -> None:
    """A file is of one form: the first line says which, the others are not guessed at."""
    data = '{"prompt": "a cat"}\n' + line("second")

    (problem,) = read(data, BATCH).problems

    assert str(problem) == (
        "batch.jsonl:2: is an OpenAI Batch line, in a file of lines of the plain form: "
        "put lines of the two forms into two files"
    )
    assert problem.custom_id == "second"


def test_a_plain_line_with_a_text_called_body_is_a_plain_line() -> None:
    """One word alone does not make another form."""
    assert answers('{"body": "a cat"}', BATCH)[0] == (
        "1: body: is no field of a line: put the fields of body at the top of the line"
    )
