from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from input_files import answers, read

from ddit_batch.line_aliases import ALIASES

TABLE = "p.csv"


def prompts(data: bytes | str) -> list[tuple[int, str]]:
    return [(request.line, request.prompt) for request in read(data, TABLE).requests]


def test_a_full_row_is_taken_as_written() -> None:
    """Every field may be a column, and metadata one for each pair."""
    header = (
        "custom_id,model,prompt,negative_prompt,height,width,num_frames,num_inference_steps,"
        "guidance_scale,seed,fps,priority,metadata.scene,metadata.Take 2"
    )

    (request,) = read(
        f"{header}\nc1,large,a cat,rain,704,1280,5,3,0.5,7,12,-2,s1,x\n", TABLE
    ).requests

    assert request.to_json() == {
        "custom_id": "c1",
        "line": 2,
        "model": "large",
        "prompt": "a cat",
        "negative_prompt": "rain",
        "height": 704,
        "width": 1280,
        "num_frames": 5,
        "num_inference_steps": 3,
        "guidance_scale": 0.5,
        "seed": 7,
        "fps": 12,
        "priority": -2,
        "metadata": {"scene": "s1", "Take 2": "x"},
    }


@pytest.mark.parametrize(
    "data",
    [
        "prompt,seed\na cat,7\nb,\n",
        "\ufeffprompt,seed\r\na cat,7\r\nb,\r\n",
        "prompt;seed\na cat;7\nb;",
        "prompt\tseed\na cat\t7\nb\t\n",
        '"prompt","seed"\n"a cat","7"\n"b",""\n',
        "Prompt, Seed\n a cat , 7\nb , \n",
        "text,seed\na cat,7.0\nb,\n",
        "prompt,seed,,\na cat,7,,\nb,,,\n\n,,,\n",
        "seed,prompt\n7,a cat\n,b\n",
    ],
    ids=[
        "plain",
        "bom and crlf",
        "semicolons",
        "tabs",
        "all quoted",
        "blanks",
        "text for prompt",
        "empty columns and rows",
        "order",
    ],
)
def test_how_a_table_is_written_does_not_change_what_it_asks_for(data: str) -> None:
    """What spreadsheets do to a table does not matter."""
    plain = read("prompt,seed\na cat,7\nb,\n", TABLE)

    assert read(data, TABLE) == plain
    assert [request.prompt for request in plain.requests] == ["a cat", "b"]


def test_an_empty_cell_is_a_field_that_is_not_given() -> None:
    """Columns are for those rows that need them."""
    (request,) = read("prompt,fps,custom_id,metadata.a\na cat,,,\n", TABLE).requests

    assert request == read('\n{"prompt": "a cat"}', "p.jsonl").requests[0]


def test_quoted_cells_may_hold_delimiters_quotes_and_line_ends() -> None:
    """Quoting is that of RFC 4180; a row is numbered by its first line."""
    data = 'prompt,seed\r\n"a, ""b""\r\nc",1\r\n\r\n"x\n\ny",2\r\nz,3\r\n'

    assert prompts(data) == [(2, 'a, "b"\nc'), (5, "x\n\ny"), (8, "z")]


def test_only_line_feeds_end_a_row() -> None:
    """Other characters that some programs take for line ends stay in the prompt."""
    assert prompts("prompt\na\u2028b\u2029c\x0bd\x0ce\x85f\n") == [
        (2, "a\u2028b\u2029c\x0bd\x0ce\x85f")
    ]


def test_a_quote_inside_an_unquoted_cell_is_a_character() -> None:
    """Inches need no quoting."""
    assert prompts('prompt,seed\na 5" screen,1\n') == [(2, 'a 5" screen')]


@pytest.mark.parametrize("alias", sorted(set(ALIASES) - {"extra", "tags"}))
def test_a_column_may_have_the_name_that_other_tools_use(alias: str) -> None:
    """A table of another tool is taken without a new header."""
    field = ALIASES[alias]
    value = {"prompt": "a cat", "custom_id": "c", "model": "large"}.get(field, "16")
    value = "17" if field == "num_frames" else value
    other, cell = ("seed", "16") if field == "prompt" else ("prompt", "a cat")

    assert read(f"{alias},{other}\n{value},{cell}\n", TABLE) == read(
        f"{field},{other}\n{value},{cell}\n", TABLE
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (",,", None),
        (",64,", 'prompt: "": is empty: say what the video shows'),
        ("a,tall,", 'height: "tall": must be a whole number, not a string'),
        ("a,64.5,", "height: 64.5: must be a whole number: use 64 or 65"),
        ("a,725,", "height: 725: must be a multiple of 16: use 720 or 736"),
        ("a,nan,", "height: NaN: must be a whole number, and finite"),
        ("a,1e400,", "height: Infinity: must be a whole number, and finite"),
        ("a," + "9" * 5000 + ",", "height: Infinity: must be a whole number, and finite"),
        ("a,1_000,", 'height: "1_000": must be a whole number, not a string'),
        ("a,,inf", "cfg: Infinity: must be a number, and finite"),
        (
            'a,,"5,0"',
            'cfg: "5,0": must be a number, not a string: write 5.0, with a point',
        ),
        ("a", "has 1 cells, but the header 3: write every cell, if need be an empty one"),
        (
            "a, b,64,",
            "has 4 cells, but the header 3: put a cell that holds a comma into double quotes",
        ),
        (
            '"a "cat"",64,',
            (
                "has text after the closing quote of a cell: "
                "write a quote inside a quoted cell twice"
            ),
        ),
        (
            "a\rb,64,",
            (
                "has a carriage return in the middle of the line: "
                "end lines with a line feed (LF or CR LF)"
            ),
        ),
        (
            "a\0b,64,",
            'prompt: "a\\u0000b": must not contain a NUL character (\\u0000): remove it',
        ),
        (
            "x" * 51 + ",,",
            (
                f'prompt: "{"x" * 40}...": has 51 characters, more than small takes: '
                "shorten it to 50"
            ),
        ),
    ],
)
def test_a_wrong_row_is_answered_and_those_around_it_are_read(
    row: str, expected: str | None
) -> None:
    """Cells are held against the rules of the fields, in the words of the header."""
    result = read(f"prompt,height,cfg\nfirst,,\n{row}\nlast,,\n", TABLE)

    said = [f"p.csv:3: {expected}"] if expected else []
    assert [str(problem) for problem in result.problems] == said
    assert [request.line for request in result.requests] == [2, 4]


def test_a_row_that_is_not_utf8_is_answered_with_the_byte() -> None:
    """A spreadsheet that saves in a code page of its own is told so, row by row."""
    data = b'prompt,seed\ncaf\xe9,1\n"b\n\xe9",2\nc,3\n'

    result = read(data, TABLE)

    assert [str(problem) for problem in result.problems] == [
        "p.csv:2: is not UTF-8: byte 0xe9 at offset 15: save the file as UTF-8",
        "p.csv:3: is not UTF-8: byte 0xe9 at offset 22: save the file as UTF-8",
    ]
    assert [request.line for request in result.requests] == [5]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", "1: the file holds no prompts: write one row for each prompt"),
        ("\n\n", "1: the file holds no prompts: write one row for each prompt"),
        ("prompt,seed\n\n", "1: the file holds no prompts: write one row for each prompt"),
        (
            "a cat\na dog\n",
            (
                '1: the header has no column prompt or text: it is "a cat": '
                "begin the file with a line such as prompt,seed"
            ),
        ),
        (
            "\n7,8\n",
            (
                '2: the header has no column prompt or text: it is "7, 8": '
                "begin the file with a line such as prompt,seed"
            ),
        ),
        (
            "prompt,prompt\na,b\n",
            '1: prompt: means prompt, as the column "prompt" does: keep one of them',
        ),
        (
            "prompt,text\na,b\n",
            '1: text: means prompt, as the column "prompt" does: keep one of them',
        ),
        (
            "prompt,metadata.a,metadata.a\na,b,c\n",
            '1: "metadata.a": means metadata.a, as the column "metadata.a" does: keep one of them',
        ),
        ("prompt,hight\na,64\n", "1: hight: is no column that is known: did you mean height?"),
        (
            "prompt,size\na,64\n",
            "1: size: is no column that is known: use height and width, in pixels",
        ),
        (
            "prompt,concept\na,b\n",
            (
                "1: concept: is no column that is known: "
                "remove the column, or keep it as metadata.concept"
            ),
        ),
        (
            "prompt,tags\na,b\n",
            (
                "1: tags: is no column that is known: "
                "give each pair a column of its own, such as metadata.scene"
            ),
        ),
        (
            'prompt,seed\na,1\n"b,2\nc,3\n',
            (
                "3: opens a quote that is never closed: "
                "close it; write a quote inside a quoted cell twice"
            ),
        ),
        (
            'prompt,seed\n"' + "x,\n" * 100_000,
            (
                "2: opens a quote that is never closed: "
                "close it; write a quote inside a quoted cell twice"
            ),
        ),
        (
            'prompt,seed\n"a" "b,1\nc,2\n',
            (
                "2: has text after the closing quote of a cell: "
                "write a quote inside a quoted cell twice"
            ),
        ),
        (
            "prompt\ra\rb\r",
            (
                "1: has a carriage return in the middle of the line: "
                "end lines with a line feed (LF or CR LF)"
            ),
        ),
        ("prompt\na\n".encode("utf-16"), "1: the file is UTF-16: save it as UTF-8"),
    ],
)
def test_a_table_in_doubt_is_one_answer_and_gives_no_request(
    data: str | bytes, expected: str
) -> None:
    """Where the meaning of other rows is in question, none of them is taken, skipping or not."""
    assert answers(data, TABLE) == [expected]
    assert read(data, TABLE).requests == ()


def test_all_wrong_columns_are_answered_together() -> None:
    """A header is mended in one go."""
    assert len(answers("prompt,hight,steps,num_steps,concept\n", TABLE)) == 3


def test_a_value_without_a_column_name_is_answered() -> None:
    """Nothing that a user wrote is dropped in silence."""
    assert answers("prompt,,\na,,64\n", TABLE) == [
        "2: has a value in column 3, which has no name: name the column, or empty it"
    ]


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text != ""
)


@given(
    st.lists(CELLS, min_size=1, max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_a_csv_writer_writes_is_read_back(
    cells: list[str],
    delimiter: str,
    end: str,
    quote_all: bool,  # noqa: FBT001 -- hypothesis passes it
) -> None:
    """Whatever a prompt holds, a table that a program wrote gives it back."""
    table = io.StringIO()
    style = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(table, delimiter=delimiter, lineterminator=end, quoting=style)
    writer.writerows([("seed", "prompt"), *((i, cell) for i, cell in enumerate(cells))])

    result = read(table.getvalue(), TABLE)

    assert result.problems == ()
    assert [request.prompt for request in result.requests] == cells
