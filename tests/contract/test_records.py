"""Records of jsonl, JSON arrays, csv and plain text: what is a row, on which line, and what is said of the rest."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api import records
from finetune_api.records import (
    BOM,
    UNCLOSED,
    Fault,
    Record,
    Unreadable,
    array_records,
    bounded_lines,
    csv_header,
    csv_records,
    is_array,
    is_repeated_header,
    json_records,
    parse_json,
    text_records,
)

LIMIT = 1 << 20


@pytest.fixture
def a_small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", LIMIT)


def lines(data: bytes) -> list[bytes]:
    return io.BytesIO(data).readlines()


# ---------------------------------------------------------------------- jsonl


def test_lines_are_records_and_blank_ones_are_no_rows() -> None:
    found = [*json_records(lines(b'\xef\xbb\xbf{"a": 1}\n \n\xef\xbb\xbf\n{"a": 2}'), first_line=3)]
    assert [(record.line, record.blank) for record in found] == [(3, False), (4, True), (5, True), (6, False)]
    assert [parse_json(record.raw) for record in found if not record.blank] == [{"a": 1}, {"a": 2}]


@pytest.mark.usefixtures("a_small_limit")
def test_a_line_is_bounded() -> None:
    assert [*bounded_lines(io.BytesIO(b"x" * LIMIT))] == [b"x" * LIMIT]
    with pytest.raises(Unreadable, match="the line holds more than 1 MiB") as found:
        [*bounded_lines(io.BytesIO(b"{}\n" + b"x" * (LIMIT + 1)))]
    assert (found.value.line, found.value.hint) == (2, "Write one row a line; split rows that are so long.")


@pytest.mark.parametrize(
    ("raw", "kind", "says"),
    [
        (b'{"a": "\xff"}', "InvalidEncoding", "not valid UTF-8"),
        (b"[1, 2]", "InvalidJson", "holds a JSON array, not an object"),
        (b'"a"', "InvalidJson", "holds a JSON string"),
        (b"1", "InvalidJson", "holds a JSON number"),
        (b"1.5", "InvalidJson", "holds a JSON number"),
        (b"true", "InvalidJson", "holds a JSON boolean"),
        (b"null", "InvalidJson", "holds a JSON null"),
        (b"[1,", "InvalidJson", "a JSON array is read where it is the whole object"),
        (b"<html>", "InvalidJson", "the line holds HTML or XML"),
        (b'{"a": 1} {"a": 2}', "InvalidJson", "more than one value; write one object a line"),
        (b'{"a": 1', "InvalidJson", "does not end in its line"),
        (b'{"a": x}', "InvalidJson", "not valid JSON: Expecting value at column 7"),
        (b"1" * 5000, "InvalidJson", "not valid JSON: Exceeds the limit"),
        (b"[" * 200_000, "InvalidJson", "not valid JSON: maximum recursion"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_a_line_that_is_no_object_is_a_fault(raw: bytes, kind: str, says: str) -> None:
    found = parse_json(raw)
    assert isinstance(found, Fault)
    assert found.kind == kind
    assert says in found.message
    assert len(found.message) < 250


# ---------------------------------------------------------------------- arrays


def rows_of(data: bytes) -> list[Any]:
    return [json.loads(record.raw) for record in array_records(io.BytesIO(data))]


def test_an_array_is_told_from_lines_by_its_start() -> None:
    assert is_array(b" \n[1")
    assert is_array(BOM + b"[")
    assert not is_array(b'{"a": [1]}')


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.integers()))))
def test_an_array_s_elements_are_records(rows: list[dict[str, Any]]) -> None:
    for text in (json.dumps(rows), json.dumps(rows, indent=2) + "\n"):
        found = [*array_records(io.BytesIO(text.encode()))]
        assert [json.loads(record.raw) for record in found] == rows
        assert [record.line for record in found] == [*range(1, len(rows) + 1)]


def test_an_element_may_reach_over_what_is_read_at_once() -> None:
    rows = [{"a": "x" * 100_000}, {"a": 1}, {"b": "é" * 50_000}, 12_345]
    assert rows_of(json.dumps(rows, ensure_ascii=False).encode()) == rows


def test_a_number_that_may_go_on_is_read_to_its_end() -> None:
    head = b"[" + b" " * ((1 << 16) - 4)
    assert rows_of(head + b"123456]") == [123456]


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (b'[{"a": 1} {"a": 2}]', 1, "row 1 of the JSON array is followed by '{', not by a comma or its end"),
        (b'[{"a": 1}] [2]', 1, "more follows behind the JSON array of 1 rows"),
        (b'[{"a": 1},', 2, "the JSON array does not end: it breaks off at row 2"),
        (
            b'[{"a": 1}, {"a"',
            2,
            "row 2 of the JSON array is not valid JSON: Expecting ':' delimiter: it breaks off here",
        ),
        (b'[{"a": 1}, {a: 2}' + b" " * 20 + b"]", 2, "row 2 of the JSON array is not valid JSON: Expecting property"),
        (b'["\xff"]', 1, "not valid UTF-8 at or behind row 1"),
        (b"[" + b"1" * 5000 + b" " * 20 + b"]", 1, "is not valid JSON: Exceeds the limit"),
        (b"[" + b"[" * 200_000 + b"]", 1, "is not valid JSON: maximum recursion"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_an_array_that_is_broken_cannot_be_read_on(data: bytes, line: int, says: str) -> None:
    with pytest.raises(Unreadable) as found:
        rows_of(data)
    assert says in found.value.message
    assert found.value.line == line


@pytest.mark.usefixtures("a_small_limit")
def test_an_element_is_bounded() -> None:
    with pytest.raises(Unreadable, match="row 1 of the JSON array holds more than 1 MiB"):
        rows_of(b'["' + b"x" * (4 * LIMIT) + b'"]')


# ---------------------------------------------------------------------- csv


def table(data: bytes, **options: Any) -> tuple[tuple[str, ...], str, list[Record]]:
    source = iter(lines(data))
    header, delimiter, taken = csv_header(source)
    return header, delimiter, [*csv_records(source, header, delimiter, len(taken) + 1, **options)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_have_the_header_s_columns_and_their_own_lines(delimiter: str) -> None:
    text = '\n\ufeff text ,label\nhello,1\n\n  \n"two\nlines ""quoted""",2\nafter,3\n'.replace(",", delimiter)
    header, found_delimiter, found = table(text.replace("\ufeff", "").encode())
    assert (header, found_delimiter) == (("text", "label"), delimiter)
    assert [(record.line, record.blank) for record in found] == [
        (3, False),
        (4, True),
        (5, True),
        (6, False),
        (8, False),
    ]
    assert found[0].values == {"text": "hello", "label": "1"}
    assert found[3].values == {"text": 'two\nlines "quoted"', "label": "2"}
    assert found[3].raw.count(b"\n") == 2


def test_a_byte_order_mark_is_no_part_of_the_header() -> None:
    assert csv_header(iter([BOM + b"a,b\n"])) == (("a", "b"), ",", [BOM + b"a,b\n"])


def test_white_space_may_be_a_row_where_it_is_asked_for() -> None:
    assert [record.blank for record in table(b"a,b\n \n", spaces=False)[2]] == [False]
    assert [record.blank for record in table(b"a\n \n")[2]] == [False]


def test_an_object_without_a_header_has_no_columns() -> None:
    assert csv_header(iter([])) == ((), ",", [])
    assert csv_header(iter([b"\n", b" \n"])) == ((), ",", [b"\n", b" \n"])


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b"a,b\n1\n", "InvalidCsv", "has 1 fields where the header has 2"),
        (b"a,b\n\xff,1\n", "InvalidEncoding", "not valid UTF-8"),
        (b'a,b\n"x"y,1\n', "InvalidCsv", "not valid csv: text follows a closing quote"),
        (b'a\tb\n"x"y\t1\n', "InvalidCsv", "not valid tsv (csv with tabs): text follows"),
        (b'a,b\n"x\n"y,1\n', "InvalidCsv", "the record reaches to line 3"),
        (b"a,b\n1\r2,3\n", "InvalidCsv", "a carriage return stands outside quotes"),
        (b'a,b\n"x', "InvalidCsv", "a quote that opens in this record is never closed"),
        (b'a,b\n"x\ny\n', UNCLOSED, "never closed: all up to line 3 is lost"),
    ],
    ids=lambda value: value.decode("latin-1") if isinstance(value, bytes) else "",
)
def test_a_record_that_cannot_be_read_is_a_fault(data: bytes, kind: str, says: str) -> None:
    found = table(data)[2][0].values
    assert isinstance(found, Fault)
    assert (found.kind, says in found.message) == (kind, True), found


def test_an_error_of_the_csv_module_that_we_do_not_know_is_told_in_its_words() -> None:
    fields = csv_records([b"a,b\n"], ("a", "b"), ",", 2)
    assert next(fields).values == {"a": "a", "b": "b"}
    assert records._csv_message(records.csv.Error("a new one"), ",") == "not valid csv: a new one"


@pytest.mark.usefixtures("a_small_limit")
def test_a_quote_that_swallows_all_is_noticed_in_time() -> None:
    with pytest.raises(Unreadable, match="not closed within 1 MiB") as found:
        table(b'a,b\n1,2\n"x\n' + b"y\n" * LIMIT)
    assert found.value.line == 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a,b\r1,2\r3,4", "its lines end with carriage returns only"),
        (b'\n"a,b\n1,2\n', "the quote opened in line 2 never closes"),
        (b'"a"b,c\n1,2\n', "the header is not valid csv: text follows a closing quote"),
    ],
)
def test_a_header_that_cannot_be_read_ends_it(data: bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        csv_header(iter(lines(data)))


def test_a_header_that_stands_there_again_is_recognised() -> None:
    assert is_repeated_header({"a": " a", "b": "b"}, ("a", "b"))
    assert not is_repeated_header({"a": "a", "b": "x"}, ("a", "b"))
    assert not is_repeated_header({"a": "a"}, ("a",))


def test_long_fields_are_no_error() -> None:
    assert sys.maxsize > records.csv.field_size_limit() > 1 << 29


def test_lines_of_a_text_are_rows_where_they_hold_something() -> None:
    data = BOM + b'one\r\n\n \t\n{"two"}\n\xff\n  three'
    found = list(text_records(lines(data), 5))
    assert [(record.line, record.blank) for record in found] == [
        (5, False),
        (6, True),
        (7, True),
        (8, False),
        (9, False),
        (10, False),
    ]
    assert [found[n].values for n in (0, 3, 5)] == [{"text": "one"}, {"text": '{"two"}'}, {"text": "  three"}]
    assert isinstance(found[4].values, Fault)
    assert found[4].values.kind == "InvalidEncoding"
    assert b"".join(record.raw for record in found) == data
