import re

import pytest
from prompt_files import MODELS, line, parsed, problems

from ddit_batch.prompt_file import parse

WRONG_LINES = r"""
{"prompt": null}
    prompt: is missing: add "prompt": "..."
{"prompt": ""}
    prompt: "": is empty: say what the video shows
{"prompt": " \t"}
    prompt: " \t": is empty: say what the video shows
{"prompt": 7}
    prompt: 7: must be a string, not a number: write "7"
{"prompt": ["a"]}
    prompt: [...]: must be a string, not an array
{"prompt": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}
    prompt: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...": has 51 characters, more than
    small takes: shorten it to 50
{"prompt": "a cat", "negative_prompt": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}
    negative_prompt: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...": has 51 characters, more
    than small takes: shorten it to 50
{"prompt": "a\u0000b"}
    prompt: "a\u0000b": must not contain a NUL character (\u0000): remove it
{"prompt": "a\ud83d"}
    prompt: "a\ud83d": contains \ud83d, one half of a surrogate pair: write both halves, or
    the character itself in UTF-8
{"prompt": "a cat", "height": "64"}
    height: "64": must be a whole number, not a string: write 64 without quotes
{"prompt": "a cat", "height": "tall"}
    height: "tall": must be a whole number, not a string
{"prompt": "a cat", "height": true}
    height: true: must be a whole number, not a boolean
{"prompt": "a cat", "height": 64.5}
    height: 64.5: must be a whole number: use 64 or 65
{"prompt": "a cat", "height": [64]}
    height: [...]: must be a whole number, not an array
{"prompt": "a cat", "height": {}}
    height: {}: must be a whole number, not an object
{"prompt": "a cat", "height": NaN}
    height: NaN: must be a whole number, and finite
{"prompt": "a cat", "seed": Infinity}
    seed: Infinity: must be a whole number, and finite
{"prompt": "a cat", "guidance_scale": NaN}
    guidance_scale: NaN: must be a number, and finite
{"prompt": "a cat", "guidance_scale": -Infinity}
    guidance_scale: -Infinity: must be a number, and finite
{"prompt": "a cat", "guidance_scale": true}
    guidance_scale: true: must be a number, not a boolean
{"prompt": "a cat", "guidance_scale": "5.0"}
    guidance_scale: "5.0": must be a number, not a string: write 5.0 without quotes
{"prompt": "a cat", "seed": -1}
    seed: -1: must be 0 to 4294967295: use 0
{"prompt": "a cat", "seed": 4294967296}
    seed: 4294967296: must be 0 to 4294967295: use 4294967295
{"prompt": "a cat", "fps": 0}
    fps: 0: must be 1 to 120: use 1
{"prompt": "a cat", "fps": 121}
    fps: 121: must be 1 to 120: use 120
{"prompt": "a cat", "guidance_scale": 100.5}
    guidance_scale: 100.5: must be 0 to 100: use 100
{"prompt": "a cat", "guidance_scale": -1}
    guidance_scale: -1: must be 0 to 100: use 0
{"prompt": "a cat", "priority": 1001}
    priority: 1001: must be -1000 to 1000: use 1000
{"prompt": "a cat", "num_inference_steps": 101}
    num_inference_steps: 101: must be 1 to 100 for small: use 100
{"prompt": "a cat", "num_inference_steps": 0}
    num_inference_steps: 0: must be 1 to 100 for small: use 1
{"prompt": "a cat", "height": 752}
    height: 752: must be 16 to 736 for small: use 736
{"prompt": "a cat", "width": 15}
    width: 15: must be 16 to 736 for small: use 16
{"prompt": "a cat", "num_frames": 85}
    num_frames: 85: must be 1 to 81 for small: use 81
{"prompt": "a cat", "height": 725}
    height: 725: must be a multiple of 16: use 720 or 736
{"prompt": "a cat", "width": 17}
    width: 17: must be a multiple of 16: use 16 or 32
{"prompt": "a cat", "num_frames": 80}
    num_frames: 80: must be a multiple of 4 plus 1: use 77 or 81
{"prompt": "a cat", "num_frames": 2}
    num_frames: 2: must be a multiple of 4 plus 1: use 1 or 5
{"prompt": "a cat", "model": "large", "height": 720}
    height: 720: must be a multiple of 32: use 704 or 736
{"prompt": "a cat", "model": "sora"}
    model: "sora": is unknown: name one of large, small
{"prompt": "a cat", "model": 3}
    model: 3: must be a string, not a number: write "3"
{"prompt": "a cat", "custom_id": 17}
    custom_id: 17: must be a string, not a number: write "17"
{"prompt": "a cat", "custom_id": ""}
    custom_id: "": is empty: leave it out to get one for the line's number
{"prompt": "a cat", "custom_id": "a/b"}
    custom_id: "a/b": must not start with a dot or contain /, \ or control characters,
    because the video is named for it: use "a_b"
{"prompt": "a cat", "custom_id": "../x"}
    custom_id: "../x": must not start with a dot or contain /, \ or control characters,
    because the video is named for it: use "_x"
{"prompt": "a cat", "custom_id": ".x"}
    custom_id: ".x": must not start with a dot or contain /, \ or control characters,
    because the video is named for it: use "x"
{"prompt": "a cat", "custom_id": ".."}
    custom_id: "..": must not start with a dot or contain /, \ or control characters,
    because the video is named for it: use "a-name"
{"prompt": "a cat", "custom_id": "a\\b\u001b\u0085"}
    custom_id: "a\\b\u001b\x85": must not start with a dot or contain /, \ or control
    characters, because the video is named for it: use "a_b__"
{"prompt": "a cat", "custom_id": "a\u0000"}
    custom_id: "a\u0000": must not contain a NUL character (\u0000): remove it
{"prompt": "a cat", "metadata": []}
    metadata: []: must be an object of strings, not an array
{"prompt": "a cat", "metadata": {"a": 1}}
    metadata: {...}: must be an object of strings, but "a" is a number: put the value in
    quotes
{"prompt": "a cat", "metadata": {"a": null}}
    metadata: {...}: must be an object of strings, but "a" is null: put the value in quotes
{"prompt": "a cat", "metadata": {"": "x"}}
    metadata: {...}: has a key that is not 1 to 64 characters
{"prompt": "a cat", "metadata": {"k\u0000": "v"}}
    metadata: {...}: must not contain a NUL character (\u0000): remove it
{"prompt": "a cat", "hight": 64}
    hight: is no field of a line: did you mean height?
{"prompt": "a cat", "numFrames": 9}
    numFrames: is no field of a line: did you mean num_frames?
{"prompt": "a cat", "Height": 64}
    Height: is no field of a line: write height
{"prompt": "a cat", "frame_num": 9}
    frame_num: is no field of a line: did you mean num_frames?
{"prompt": "a cat", "sample_steps": 9}
    sample_steps: is no field of a line: did you mean num_inference_steps?
{"prompt": "a cat", "infer-steps": 9}
    "infer-steps": is no field of a line: did you mean num_inference_steps?
{"prompt": "a cat", "cfg_scale": 9}
    cfg_scale: is no field of a line: did you mean guidance_scale?
{"prompt": "a cat", "base_seed": 9}
    base_seed: is no field of a line: did you mean seed?
{"prompt": "a cat", "size": "480*832"}
    size: is no field of a line: use height and width, in pixels
{"prompt": "a cat", "zzz": 0}
    zzz: is no field of a line: use only custom_id, model, prompt, negative_prompt, height,
    width, num_frames, num_inference_steps, guidance_scale, seed, fps, priority, metadata
{"prompt": "a cat", "\u001b[31m": 0}
    "\u001b[31m": is no field of a line: use only custom_id, model, prompt, negative_prompt,
    height, width, num_frames, num_inference_steps, guidance_scale, seed, fps, priority,
    metadata
"""
"""Lines as users write them, each with what is said about it."""

CASES = re.findall(r"^(\{.*)\n((?:    .*\n)+)", WRONG_LINES, flags=re.MULTILINE)


@pytest.mark.parametrize(("wrong", "answer"), CASES)
def test_a_wrong_field_is_answered_with_rule_and_cure(wrong: str, answer: str) -> None:
    """Each kind of wrong value has its own answer, and is the line's only problem."""
    expected = " ".join(part.strip() for part in answer.splitlines())

    assert problems(line() + "\n" + wrong) == [f"p.jsonl:2: {expected}"]


def test_too_much_is_answered_with_the_limit() -> None:
    """A custom_id and metadata may be only so long."""
    assert problems(line(custom_id="i" * 129)) == [
        f'p.jsonl:1: custom_id: "{"i" * 40}...": has 129 characters: shorten it to 128'
    ]
    assert problems(line(metadata={str(i): "" for i in range(17)})) == [
        "p.jsonl:1: metadata: {...}: has 17 pairs: keep 16 at most"
    ]
    assert problems(line(metadata={"k": "v" * 513})) == [
        'p.jsonl:1: metadata: {...}: has 513 characters at "k": shorten them to 512'
    ]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (
            b'{"prompt": "caf\xe9"}\n',
            "is not UTF-8: byte 0xe9 at offset 35: save the file as UTF-8",
        ),
        (
            b'{"prompt": "a" "fps": 8}\n',
            (
                "is not JSON: Expecting ',' delimiter (column 16): write names and texts in double "
                "quotes, with no comma after the last pair"
            ),
        ),
        (
            b"{'prompt': 'a'}\n",
            (
                "is not JSON: Expecting property name enclosed in double quotes (column 2): write "
                "names and texts in double quotes, with no comma after the last pair"
            ),
        ),
        (
            b'{"prompt": "a"\n',
            (
                "is not JSON: Expecting ',' delimiter (column 15): write each object on a "
                "single line: `jq -c . FILE` does it"
            ),
        ),
        (
            b"a cat\n",
            'is not JSON: Expecting value (column 1): write {"prompt": "a cat"}',
        ),
        (b'"a cat"\n', 'is a string, not an object: write {"prompt": "a cat"}'),
        (b"[1]\n", 'is an array, not an object: write {"prompt": "..."}'),
        (b"17\n", 'is a number, not an object: write {"prompt": "..."}'),
        (b"null\n", 'is null, not an object: write {"prompt": "..."}'),
        (
            b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}\n",
            "holds a number with too many digits to read: shorten it",
        ),
        (
            b'{"prompt": ' + b"[" * 200_000 + b"\n",
            'is nested too deeply to read: write {"prompt": "..."}',
        ),
        (
            b'{"prompt": "a", "fps": 8, "fps": 9, "fps": 8}\n',
            "fps: is given more than once: keep one of them",
        ),
        (
            b'{"prompt": "a", "metadata": {"k": "1", "k": "2"}}\n',
            "k: is given more than once: keep one of them",
        ),
        (
            b'{"prompt": "a", "seed": 1e400}\n',
            "seed: Infinity: must be a whole number, and finite",
        ),
        (
            b'{"prompt": "a", "guidance_scale": 1' + b"0" * 400 + b"}\n",
            f"guidance_scale: 1{'0' * 39}...: must be 0 to 100: use 100",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_answered_with_its_cause(bad: bytes, expected: str) -> None:
    """A line that is no object is one problem, and the lines around it are read."""
    result = parsed(line().encode() + b"\n" + bad + line().encode())

    assert [str(problem) for problem in result.problems] == [f"p.jsonl:2: {expected}"]
    assert [request.line for request in result.requests] == [1, 3]


@pytest.mark.parametrize(
    "end", [b"{", b'{"pro', b'{"prompt": "a c', b'{"prompt": "a", "metadata": {}', b'{"a": "\xc3']
)
def test_a_last_line_that_is_cut_off_is_called_so(end: bytes) -> None:
    """An upload that stopped half-way is told from a typing error."""
    expected = (
        "p.jsonl:2: is cut off: the file ends in the middle of the line: "
        "copy the file again, or finish the line"
    )

    assert problems(line().encode() + b"\n" + end) == [expected]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b'\n[\n  {"prompt": "a"},\n  {"prompt": "b"}\n]\n',
            (
                "p.jsonl:2: the file is a JSON array, not JSON Lines: write one object a line: "
                "`jq -c '.[]' FILE` turns an array into lines"
            ),
        ),
        (
            b'[{"prompt": "a"}, {"prompt": "b"}]\n',
            (
                "p.jsonl:1: the file is a JSON array, not JSON Lines: write one object a line: "
                "`jq -c '.[]' FILE` turns an array into lines"
            ),
        ),
        (
            b'\xef\xbb\xbf{\r\n  "prompt": "a"\r\n}\r\n',
            (
                "p.jsonl:1: the file has an object over several lines: write each object on a "
                "single line: `jq -c . FILE` does it"
            ),
        ),
        (
            b'{"prompt": "a",\n "fps": 8}\n',
            (
                "p.jsonl:1: the file has an object over several lines: write each object on a "
                "single line: `jq -c . FILE` does it"
            ),
        ),
        (
            '{"prompt": "a"}\n'.encode("utf-16"),
            "p.jsonl:1: the file is UTF-16: save it as UTF-8",
        ),
        (b"", 'p.jsonl:1: the file holds no prompts: write {"prompt": "..."}'),
        (b"\xef\xbb\xbf\n\n", 'p.jsonl:1: the file holds no prompts: write {"prompt": "..."}'),
    ],
)
def test_a_file_of_another_form_is_one_problem(data: bytes, expected: str) -> None:
    """What is wrong with the file as a whole is said once, not for each line."""
    assert problems(data) == [expected]


def test_all_problems_of_all_lines_are_reported() -> None:
    """One reading finds everything, in the order of the file."""
    found = problems(
        '{"height": 65, "fps": 0, "x": 1}\n{"prompt": "a"\n{"prompt": "a", "seed": -1}'
    )

    assert [problem.split(": ")[:2] for problem in found] == [
        ["p.jsonl:1", "height"],
        ["p.jsonl:1", "fps"],
        ["p.jsonl:1", "x"],
        ["p.jsonl:1", "prompt"],
        ["p.jsonl:2", "is not JSON"],
        ["p.jsonl:3", "seed"],
    ]


def test_a_prompt_under_another_name_is_not_called_missing_as_well() -> None:
    """One mistake is one problem."""
    assert problems('{"text": "a cat"}') == [
        "p.jsonl:1: text: is no field of a line: did you mean prompt?"
    ]


def test_a_repeated_custom_id_names_its_first_line() -> None:
    """Two lines with one name cannot both give their video that name."""
    data = "\n".join([line(custom_id="x"), line(), line(custom_id="x"), line(custom_id="x")])

    assert problems(data) == [
        'p.jsonl:3: custom_id: "x": is already used on line 1: give each line its own',
        'p.jsonl:4: custom_id: "x": is already used on line 1: give each line its own',
    ]


def test_a_custom_id_that_a_line_would_get_is_taken_too() -> None:
    """A name that was made for a line counts like one that was written."""
    assert problems(line(custom_id="line-000002") + "\n" + line()) == [
        'p.jsonl:2: custom_id: "line-000002": is already used on line 1: give each line its own'
    ]


def test_a_line_with_a_repeated_key_is_checked_and_refused() -> None:
    """A repeated key does not hide the line's other problems, and gives no request."""
    result = parsed('{"prompt": "a", "fps": 8, "fps": 9}\n{"prompt": "a", "fps": 8, "fps": 0}')

    assert [(p.line, p.field, p.value) for p in result.problems] == [
        (1, "fps", ""),
        (2, "fps", ""),
        (2, "fps", "0"),
    ]
    assert result.requests == ()


def test_a_line_for_an_unknown_model_is_checked_for_the_rest() -> None:
    """What holds for every model is checked; what depends on the model is not guessed."""
    assert problems(line(model="sora", fps=0, height=1, num_frames=2)) == [
        'p.jsonl:1: model: "sora": is unknown: name one of large, small',
        "p.jsonl:1: fps: 0: must be 1 to 120: use 1",
    ]


def test_standard_input_is_called_stdin() -> None:
    """A problem of piped lines has a place that reads well."""
    result = parse(b"{}\n", file_name="-", models=MODELS, default_model="small")

    assert str(result.problems[0]) == 'stdin:1: prompt: is missing: add "prompt": "..."'
