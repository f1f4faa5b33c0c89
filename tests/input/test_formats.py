from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from input_files import read
from prompt_files import MODELS

from ddit_batch.formats import FORMATS, FormatName, format_of
from ddit_batch.line_aliases import ALIASES, FIELDS
from ddit_batch.openai_batch import BODY, ENVELOPE
from ddit_batch.prompt_file import parse

OPENAI = '{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a"}}'


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("p.txt", "prompt,seed", FormatName.TEXT),
        ("P.TXT", '{"prompt": "a"}', FormatName.TEXT),
        ("p.csv", "a cat", FormatName.CSV),
        ("p.tsv", "", FormatName.CSV),
        ("p.jsonl", "a cat", FormatName.JSONL),
        ("p.ndjson", OPENAI, FormatName.OPENAI),
        ("p.json", f"?\n\n{OPENAI}", FormatName.OPENAI),
        ("p.csv.bak", "prompt;seed\na;1", FormatName.CSV),
        ("-", '{"prompt": "a"}', FormatName.JSONL),
        ("-", '\ufeff\n {"prompt": "a"}', FormatName.JSONL),
        ("-", "{'prompt': 'a'}", FormatName.JSONL),
        ("-", '[{"prompt": "a"}]', FormatName.JSONL),
        ("-", "[\n1]", FormatName.TEXT),
        ("-", '[\n"a"]', FormatName.JSONL),
        ("-", OPENAI, FormatName.OPENAI),
        ("-", "prompt\na cat", FormatName.CSV),
        ("-", "\ufeffindex\tprompt\n", FormatName.CSV),
        ("-", '"text","ref"\r\n', FormatName.CSV),
        ("-", "prompt,concept,motion_level\n", FormatName.CSV),
        ("-", "a cat\na dog", FormatName.TEXT),
        ("-", "neon sign, text, blurry", FormatName.TEXT),
        ("-", "{red|blue} cat", FormatName.TEXT),
        ("-", "[wide shot] a cat", FormatName.TEXT),
        ("-", "", FormatName.TEXT),
        ("prompts", "\xff", FormatName.TEXT),
    ],
)
def test_the_extension_decides_and_else_the_first_line(
    name: str, data: str, expected: FormatName
) -> None:
    """Nobody has to name the format of a usual file."""
    assert format_of(name, data.encode()) is FORMATS[expected]


def test_the_same_prompts_in_every_format_ask_for_the_same() -> None:
    """A format is only how a file is written."""
    own = '{"custom_id": "line-000002", "prompt": "a cat", "seed": 7}\n'
    openai = (
        '{"custom_id": "line-000002", "method": "POST", "url": "/v1/videos", '
        '"body": {"prompt": "a cat", "seed": 7}}\n'
    )
    table = "prompt,seed\na cat,7\n"

    hashes = {
        read(own, "p.jsonl").content_hash,
        read(openai, "p.jsonl").content_hash,
        read(table, "p.csv").content_hash,
    }

    assert len(hashes) == 1
    assert read("\na cat", "p.txt").requests[0].prompt == "a cat"


WORDS = st.sampled_from(
    ["prompt", "seed", ",", ";", "\t", '"', '""', "\n", "\r\n", "\r", "a cat", "\0", "\ufeff", "7"]
)
BODIES = st.dictionaries(
    st.sampled_from([*BODY, *ALIASES, "custom_id", "url", "\ud800", "x"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["64x64", "0x9", "4", "1e400", [], {}, ["a"], {"a": "b"}]),
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "custom_id": st.text() | st.integers(),
        "method": st.sampled_from(["POST", "GET", [], {}, 1, None]),
        "url": st.sampled_from(["/v1/videos", "/v1", [], {}, 1, None]),
        "body": BODIES | st.lists(BODIES, max_size=1) | st.text() | st.none(),
        "seed": st.integers(),
        "\ud800": st.none(),
    },
)


@given(st.binary() | st.lists(WORDS).map(lambda words: "".join(words).encode()))
@example(b"prompt\n\xff\xfe")
@example(b'prompt\n"\xff\n"\n')
@example(b"prompt,\x00\n")
@example(b'"prompt\n",seed\na,1')
@example(b"\x00")
@example(b"prompt\n" + b'"' * 200_001)
@example(b"prompt\n" + b"x" * 200_001)
@pytest.mark.parametrize("name", FormatName)
def test_no_bytes_make_a_format_raise(name: FormatName, data: bytes) -> None:
    """Whatever a file holds, the answer is requests or problems, each printable."""
    result = parse(data, file_name="p", models=MODELS, default_model="small", lines=FORMATS[name])

    assert result.requests or result.problems
    for problem in result.problems:
        assert str(problem).isprintable()
    for request in result.requests:
        json.dumps(request.to_json()).encode()


@given(st.lists(ENVELOPES, max_size=4))
def test_no_openai_line_makes_it_raise(lines: list[dict[str, object]]) -> None:
    """Every line becomes a request or problems, whatever JSON stands where."""
    data = "\n".join(map(json.dumps, lines)).encode()

    result = parse(
        data,
        file_name="p",
        models=MODELS,
        default_model="small",
        lines=FORMATS[FormatName.OPENAI],
    )

    bad = {problem.line for problem in result.problems}
    assert not bad & {request.line for request in result.requests}
    assert len(bad) + len(result.requests) == max(len(lines), 1)


@given(st.binary(), st.sampled_from(["-", "p", "p.csv", "p.txt", "p.jsonl"]))
def test_every_file_has_a_format(data: bytes, name: str) -> None:
    """Finding out the format of a file raises nothing either."""
    assert format_of(name, data) in FORMATS.values()


def test_the_fields_of_the_formats_are_ours() -> None:
    """A field that is added to a request is one of bodies and tables too."""
    assert set(FIELDS) <= {*BODY, *ENVELOPE}
