import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prompt_files import LARGE, MODELS, SMALL, line, parsed, problems

from ddit_batch.errors import ConfigError, RequestError
from ddit_batch.line_aliases import ADVICE, ALIASES, FIELDS
from ddit_batch.line_rules import Fault, rules_for
from ddit_batch.model_config import Defaults
from ddit_batch.prompt_file import parse, read
from ddit_batch.request import Request, derive_seed

# What a good file gives


def test_a_line_with_only_a_prompt_gets_the_models_defaults() -> None:
    """A prompt is enough: id, seed and all else are filled in."""
    (request,) = parsed('{"prompt": "a cat"}\n').requests

    assert request == Request(
        custom_id="line-000001",
        line=1,
        model="small",
        prompt="a cat",
        negative_prompt="",
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=8,
        guidance_scale=5.0,
        seed=derive_seed(line=1, content={"prompt": "a cat"}),
        fps=8,
    )


def test_a_full_line_is_taken_as_written() -> None:
    """Every field of a line arrives in the request."""
    fields = {
        "custom_id": "Kätzchen 1",
        "model": "large",
        "prompt": " a cat\u2028 ",
        "negative_prompt": "a dog",
        "height": 704,
        "width": 1280,
        "num_frames": 1,
        "num_inference_steps": 1,
        "guidance_scale": 0.0,
        "seed": 2**32 - 1,
        "fps": 120,
        "priority": -1000,
        "metadata": {"b": "2", "a": ""},
    }

    (request,) = parsed(json.dumps(fields, ensure_ascii=False)).requests

    assert request.to_json() == {**fields, "line": 1}


def test_the_line_wins_over_set_and_set_over_the_models_default() -> None:
    """--set fills what lines leave out, and no more."""
    given_by_line, left_out = parsed(
        line(fps=3) + "\n" + line(), fps="5", negative_prompt="7", seed="9"
    ).requests

    assert (given_by_line.fps, left_out.fps) == (3, 5)
    assert left_out.negative_prompt == "7"
    assert (given_by_line.seed, left_out.seed) == (9, 9)
    assert left_out.num_frames == SMALL.defaults.num_frames


def test_a_line_that_names_a_model_gets_that_models_defaults_and_limits() -> None:
    """Models may be mixed in one file."""
    (request,) = parsed(line(model="large", num_frames=241)).requests

    assert (request.model, request.height, request.width) == ("large", 480, 832)


def test_null_means_not_given() -> None:
    """Tools that write every column write null for an empty one."""
    (request,) = parsed(line(height=None, seed=None, custom_id=None, model=None)).requests

    assert request == parsed(line()).requests[0]


def test_a_float_without_a_fraction_is_a_whole_number() -> None:
    """Tools that keep a column as floats write 64.0 for 64: the same request."""
    one = parsed('{"prompt": "a", "height": 64.0, "guidance_scale": 5}')
    other = parsed('{"prompt": "a", "height": 64, "guidance_scale": 5.0}')

    assert one == other
    assert one.requests[0].height == 64


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"prompt": "a cat", "custom_id": "x"}\n{"prompt": "b"}\n',
        b'{"prompt": "a cat", "custom_id": "x"}\r\n{"prompt": "b"}\r\n',
        b'{"prompt": "a cat", "custom_id": "x"}\n{"prompt": "b"}',
        b'{"prompt": "a cat", "custom_id": "x"}\n{"prompt": "b"}\n\n \t\n',
        b'{"custom_id": "x", "prompt": "a cat"}\n{"prompt": "b"}\n',
        b'  {"prompt":"a cat","custom_id":"x"}  \n\xef\xbb\xbf{"prompt": "b", "fps": null}\n',
        b'{"prompt": "a cat", "custom_id": "x"}\n{"prompt": "\\u0062"}\n',
    ],
    ids=["bom", "crlf", "no last newline", "blank end", "key order", "spaces", "escapes"],
)
def test_how_a_file_is_written_does_not_change_what_it_asks_for(data: bytes) -> None:
    """Byte order mark, line ends, blanks and key order change neither requests nor hash."""
    plain = parsed(b'{"prompt": "a cat", "custom_id": "x"}\n{"prompt": "b"}\n')

    assert parsed(data) == plain
    assert not plain.problems


def test_blank_lines_count_as_lines() -> None:
    """Line numbers are those of the user's editor."""
    first, second = parsed("\n" + line() + "\n\n" + line()).requests

    assert (first.line, second.line) == (2, 4)
    assert second.custom_id == "line-000004"


def test_the_hash_depends_on_content_and_options_only() -> None:
    """The hash tells two requests apart, and nothing else."""
    data = (line(custom_id="a", seed=1) + "\n" + line(custom_id="b", seed=1)).encode()
    mine = parse(data, file_name="p.jsonl", models=MODELS, default_model="small")
    renamed = parse(data, file_name="q.jsonl", models=MODELS, default_model="small")
    moved = parsed(b"\n" + data)
    unused = {"small": SMALL, "large": LARGE.model_copy(update={"heads": 40})}
    used = {"small": SMALL.model_copy(update={"heads": 8}), "large": LARGE}

    hashes = {
        mine.content_hash,
        parsed(data, fps="9").content_hash,
        parsed(data.replace(b"cat", b"dog")).content_hash,
        parse(data, file_name="p", models=MODELS, default_model="large").content_hash,
        parse(data, file_name="p", models=used, default_model="small").content_hash,
    }

    assert len(hashes) == 5
    assert renamed == mine
    assert moved.content_hash == mine.content_hash
    same = parse(data, file_name="p", models=unused, default_model="small")
    assert same.content_hash == mine.content_hash


# Options


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("height", "725", "--set height=725: must be a multiple of 16: use 720 or 736"),
        ("height", "tall", "--set height=tall: must be a whole number, not a string"),
        ("seed", "nan", "--set seed=nan: must be a whole number, and finite"),
        ("hight", "64", "--set hight=64: is no field of a line: did you mean height?"),
        ("prompt", "a", "--set prompt=a: is set line by line: write it into the file"),
        ("guidance_scale", "1" * 400, "must be 0 to 100: use 100"),
    ],
)
def test_a_wrong_override_is_refused_once(name: str, text: str, expected: str) -> None:
    """What is wrong with an option is not repeated for every line."""
    with pytest.raises(RequestError) as caught:
        parsed(line() + "\n" + line(), **{name: text})

    assert str(caught.value).endswith(expected)


def test_all_wrong_overrides_are_reported() -> None:
    """Options are checked together, as lines are."""
    with pytest.raises(RequestError) as caught:
        parsed(line(), fps="0", seed="-1")

    assert len(str(caught.value).splitlines()) == 2


def test_an_override_that_another_model_refuses_is_a_problem_of_its_lines() -> None:
    """A value for all lines is held against the model of each line that uses it."""
    data = "\n".join([line(), line(model="large"), line(model="large", height=64)])

    assert problems(data, height="720") == [
        (
            "p.jsonl:2: height: 720: must be a multiple of 32: use 704 or 736, or give it on the "
            "line (it is from --set)"
        )
    ]


def test_a_models_own_wrong_default_is_a_problem_of_the_lines_that_use_it() -> None:
    """A config whose defaults break its limits does not reach a worker."""
    broken = SMALL.model_copy(update={"defaults": Defaults(height=70, width=96, num_frames=9)})

    result = parse(
        (line() + "\n" + line(height=64)).encode(),
        file_name="p.jsonl",
        models={"small": broken},
        default_model="small",
    )

    assert [str(problem) for problem in result.problems] == [
        (
            "p.jsonl:1: height: 70: must be a multiple of 16: use 64 or 80, or give it on the line "
            "(it is from the defaults of small)"
        )
    ]


def test_an_unknown_default_model_is_a_config_error() -> None:
    """The caller's own mistake is not the file's."""
    with pytest.raises(ConfigError, match=r"model 'sora' is unknown \(known: large, small\)"):
        parse(b"", file_name="p", models=MODELS, default_model="sora")


def test_another_format_is_another_function() -> None:
    """A format only turns bytes into numbered fields or faults; the rules are shared."""

    def plain_text(data: bytes) -> Iterator[tuple[int, dict[str, object] | Fault]]:
        for number, text in enumerate(data.decode().splitlines(), start=1):
            yield number, {"prompt": text} if text != "?" else Fault(rule="is a riddle")

    result = parse(
        b"a cat\n?\na dog",
        file_name="p.txt",
        models=MODELS,
        default_model="small",
        lines=plain_text,
    )

    assert [request.prompt for request in result.requests] == ["a cat", "a dog"]
    assert [str(problem) for problem in result.problems] == ["p.txt:2: is a riddle"]


# The tables


def test_every_field_of_a_request_has_a_rule() -> None:
    """A field that is added to the request cannot be forgotten here."""
    assert tuple(rules_for(SMALL, model_names=MODELS)) == FIELDS


def test_aliases_lead_to_fields_and_are_none() -> None:
    """The table of other tools' names is sound."""
    assert set(ALIASES.values()) <= set(FIELDS)
    assert not (set(ALIASES) | set(ADVICE)) & set(FIELDS)
    assert not set(ALIASES) & set(ADVICE)


# Reading


def test_a_file_and_standard_input_are_read_as_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dash stands for standard input."""
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xff\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))

    assert read(str(path)) == b"\xff\r\n"
    assert read("-") == b"piped"


def test_a_file_that_cannot_be_read_is_a_request_error(tmp_path: Path) -> None:
    """A wrong path is the user's to mend."""
    with pytest.raises(RequestError, match=r"missing.jsonl: cannot be read: No such file"):
        read(str(tmp_path / "missing.jsonl"))


# Properties

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
LINES = st.dictionaries(st.sampled_from([*FIELDS, "size", "x", "\ud800"]), VALUES).map(
    lambda fields: json.dumps(fields).encode()
)


@given(st.binary())
@example(b"\xef\xbb\xbf")
@example(b'{"prompt": "\\ud800"}')
@example(b'{"\\ud800": 1}')
@example(b"[" * 100_000)
def test_no_bytes_make_it_raise(data: bytes) -> None:
    """Whatever a file holds, the answer is requests or problems, each printable."""
    result = parsed(data)

    assert result.requests or result.problems
    for problem in result.problems:
        str(problem).encode()


@given(st.lists(LINES, max_size=5), st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_no_json_makes_it_raise(lines: list[bytes], end: bytes) -> None:
    """Every line becomes a request, a problem or both lists' neighbour, never an exception."""
    result = parsed(end.join(lines))

    bad = {problem.line for problem in result.problems}
    assert not bad & {request.line for request in result.requests}
    for problem in result.problems:
        assert str(problem).isprintable()
    for request in result.requests:
        json.dumps(request.to_json()).encode()


@given(
    st.fixed_dictionaries(
        {
            "prompt": st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
                min_size=1,
                max_size=50,
            ).filter(str.strip),
            "height": st.integers(1, 46).map(lambda n: n * 16),
            "width": st.integers(1, 46).map(lambda n: n * 16),
            "num_frames": st.integers(0, 20).map(lambda n: n * 4 + 1),
            "num_inference_steps": st.integers(1, 100),
            "guidance_scale": st.floats(0, 100),
            "seed": st.integers(0, 2**32 - 1),
            "fps": st.integers(1, 120),
        },
        optional={
            "custom_id": st.from_regex(r"[a-z0-9][a-z0-9 ._-]{0,100}", fullmatch=True),
            "negative_prompt": st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50
            ),
            "priority": st.integers(-1000, 1000),
            "metadata": st.dictionaries(st.text("abc", min_size=1), st.text("xyz"), max_size=16),
        },
    ),
    st.booleans(),
)
def test_a_right_line_comes_through_unchanged(fields: dict[str, object], ascii_only: bool) -> None:  # noqa: FBT001 -- hypothesis passes it
    """A right line is its request, and the request is a right line."""
    (request,) = parsed(json.dumps(fields, ensure_ascii=ascii_only)).requests

    got = request.to_json()
    assert {name: got[name] for name in fields} == fields

    del got["line"]
    (again,) = parsed(json.dumps(got)).requests
    assert again == request


@given(st.integers(-(10**6), 10**6), st.sampled_from(["height", "width", "num_frames"]))
def test_the_sizes_that_a_cure_names_are_right(value: int, field: str) -> None:
    """Whoever follows the advice is not sent back again."""
    result = parsed(line(**{field: value}))

    for problem in result.problems:
        for advised in problem.cure.removeprefix("use ").split(" or "):
            assert not problems(line(**{field: int(advised)}))


def test_a_hundred_thousand_lines_take_seconds() -> None:
    """The largest files that users have are read while they wait."""
    data = "\n".join(line(custom_id=f"id-{i}", prompt=f"a cat, {i}") for i in range(100_000))

    start = time.perf_counter()
    result = parsed(data)

    assert len(result.requests) == 100_000
    assert time.perf_counter() - start < 20  # 1.5 s on one idle core
