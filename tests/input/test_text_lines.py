from __future__ import annotations

import pytest
from input_files import answers, read


def prompts(data: bytes | str) -> list[tuple[int, str]]:
    return [(request.line, request.prompt) for request in read(data, "p.txt").requests]


@pytest.mark.parametrize(
    "data",
    [
        "a cat\na dog\n",
        "a cat\r\na dog\r\n",
        "\ufeffa cat\na dog",
        "  a cat\t\na dog \n \t\n",
        "a cat\n\ufeffa dog\n",
    ],
    ids=["plain", "crlf", "bom", "blanks", "joined files"],
)
def test_each_line_is_a_prompt(data: str) -> None:
    """Byte order marks, line ends and blanks around it are not part of a prompt."""
    assert prompts(data) == [(1, "a cat"), (2, "a dog")]


def test_blank_lines_are_no_prompts_but_count() -> None:
    """Line numbers are those of the user's editor."""
    assert prompts("\n\na cat\n \u3000 \n\na dog") == [(3, "a cat"), (6, "a dog")]


def test_only_line_feeds_end_a_line() -> None:
    """Other characters that some programs take for line ends stay in the prompt."""
    odd = "a\u2028b\u2029c\x0bd\x0ce\x85f\x1cg"

    assert prompts(f"{odd}\nnext") == [(1, odd), (2, "next")]


def test_a_prompt_may_hold_quotes_commas_and_braces() -> None:
    """Plain text has no syntax."""
    line = '{red|blue} "cat", \\n ${x}, [wide shot]'

    assert prompts(line) == [(1, line)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "1: the file holds no prompts: write one prompt on each line"),
        (b"\xef\xbb\xbf \r\n\n", "1: the file holds no prompts: write one prompt on each line"),
        (b"a\ncaf\xe9\n", "2: is not UTF-8: byte 0xe9 at offset 5: save the file as UTF-8"),
        (
            b"a\ncaf\xc3",
            (
                "2: is cut off: the file ends in the middle of the line: "
                "copy the file again, or finish the line"
            ),
        ),
        ("a".encode("utf-16"), "1: the file is UTF-16: save it as UTF-8"),
        (
            b"PK\x03\x04\x14\x00",
            "1: the file is a spreadsheet or a zip file: export it as CSV, or unpack it",
        ),
        (
            b"\x1f\x8b\x08",
            "1: the file is compressed: pipe it in: `gunzip -c FILE | ddit submit -`",
        ),
        (
            b"PAR1\x15",
            "1: the file is a Parquet file: export it as CSV or JSON Lines",
        ),
        (
            b"a cat\ra dog\r",
            (
                "1: has a carriage return in the middle of the line: "
                "end lines with a line feed (LF or CR LF)"
            ),
        ),
        (
            b'{"prompt": "a cat"}\n',
            (
                "1: is JSON, in a file that is read as plain text: "
                "name the file .jsonl, or give --format jsonl"
            ),
        ),
        (
            b"a\x00b\n",
            '1: prompt: "a\\u0000b": must not contain a NUL character (\\u0000): remove it',
        ),
        (
            b"x" * 51,
            (
                f'1: prompt: "{"x" * 40}...": has 51 characters, more than small takes: '
                "shorten it to 50"
            ),
        ),
    ],
)
def test_a_line_that_is_no_prompt_is_answered(data: bytes, expected: str) -> None:
    """Each kind of wrong line has its own answer."""
    assert answers(data, "p.txt") == [expected]


def test_lines_around_a_wrong_one_are_read() -> None:
    """All bad lines are reported together, and none stops the reading."""
    result = read(b"a\n\xff\n\0\nb\n", "p.txt")

    assert [problem.line for problem in result.problems] == [2, 3]
    assert [request.line for request in result.requests] == [1, 4]
