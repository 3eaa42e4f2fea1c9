"""Import and export undo each other, for any rows, tokens, columns and values."""

import csv
import re
import struct
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS, CSV_TOKEN, CSV_VALUE
from stratoscope.trace.csv.read import import_csv, read_csv
from stratoscope.trace.export.csv import export_csv

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    [
        "null",
        "NA",
        "nan",
        "",
        '"',
        ",",
        "\n",
        "\r\n",
        "\r",
        '",\n"',
        " a",
        "a ",
        "=cmd",
        "\ufeff",
        "\0",
        "😀",
        "1e5",
        "\x1b[2J",
        "\x9b",
        "\u202e",
        "\\",
        "\\u001b",
        "=SUM(A1)",
        " @x|y",
        "\U000e0041",
    ]
)
ID = st.integers(0, 40) | st.sampled_from([2**31 - 1, 2**16])
VALUE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def prompts(draw):
    """A header and rows as Python values, in the header's order."""
    tokens = draw(st.dictionaries(ID, TEXT, min_size=1, max_size=5))
    extra = draw(st.lists(TEXT.filter(lambda name: name not in CSV_COLUMNS), unique=True, max_size=3))
    rows = draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(tokens)), ID, ID, VALUE, st.tuples(*[TEXT] * len(extra))),
            min_size=1,
            max_size=20,
        )
    )
    records = [
        dict(zip((*CSV_COLUMNS, *extra), (position, tokens[position], layer, neuron, value, *cells), strict=True))
        for position, layer, neuron, value, cells in rows
    ]
    return [*CSV_COLUMNS, *extra], records


def write(path, columns, records, end="\n", encoding="utf-8", separator=",", mark="."):
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, lineterminator=end, quoting=csv.QUOTE_ALL, delimiter=separator)
        writer.writerow(columns)
        for record in records:
            cells = map(record.get, columns)
            writer.writerow([repr(cell).replace(".", mark) if isinstance(cell, float) else cell for cell in cells])


def read(path):
    """An independent reader: Python's own, and what docs/csv.md says of `Escapes`."""
    with path.open(encoding="utf-8", newline="") as stream:
        columns, *rows = csv.reader(stream)
    if columns[-1] == "Escapes" and all(row[-1] == "\\" for row in rows):
        columns, *rows = [[unescaped(cell) for cell in row[:-1]] for row in [columns, *rows]]
    convert = dict.fromkeys(CSV_COLUMNS, int) | {CSV_TOKEN: str, CSV_VALUE: float}
    return columns, [
        {column: convert.get(column, str)(cell) for column, cell in zip(columns, row, strict=True)} for row in rows
    ]


def unescaped(cell):
    return re.sub(r"\\(\\|u.{4}|U.{8})", lambda one: "\\" if one[1] == "\\" else chr(int(one[1][1:], 16)), cell)


def bits(records):
    return [{**record, CSV_VALUE: struct.pack("<d", record[CSV_VALUE])} for record in records]


def assert_same(first, second):
    assert first.variables.keys() == second.variables.keys()
    for name in first.variables:
        one, two = first[name], second[name]
        assert one.dims == two.dims
        assert one.dtype == two.dtype
        assert one.values.tobytes() == two.values.tobytes() if one.dtype != object else (one.values == two.values).all()
        assert one.attrs.get("column") == two.attrs.get("column")


@settings(max_examples=100, deadline=None)
@given(
    prompts(),
    st.randoms(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", ","), ("|", ".")]),
)
def test_export_gives_back_every_row_in_order_whatever_the_file_looked_like(prompt, random, end, encoding, style):
    columns, records = prompt
    shuffled = random.sample(columns, len(columns))
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.csv", Path(folder) / "target.csv"
        write(source, shuffled, records, end, encoding, *style)
        export_csv(read_csv(source), target)
        header, back = read(target)
    assert header == [*CSV_COLUMNS, *(column for column in shuffled if column not in CSV_COLUMNS)]
    assert bits(back) == bits(records)


@settings(max_examples=60, deadline=None)
@given(st.lists(prompts(), min_size=1, max_size=3))
def test_import_of_an_export_is_the_same_dataset(several):
    with TemporaryDirectory() as folder:
        sources = [Path(folder) / f"p{number}.csv" for number in range(len(several))]
        for source, (columns, records) in zip(sources, several, strict=True):
            write(source, columns, records)
        dataset = read_csv(sources, prompt_class=["c"] * len(sources))
        targets = export_csv(dataset, Path(folder) / "out.csv")
        assert_same(
            dataset, read_csv(targets, prompt_class=["c"] * len(sources)).assign_coords(prompt_id=dataset.prompt_id)
        )


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(prompts(), min_size=1, max_size=3))
def test_a_trace_on_disk_keeps_every_row_and_column_of_the_files(several):
    with TemporaryDirectory() as folder:
        sources = [Path(folder) / f"p{number}.csv" for number in range(len(several))]
        for source, (columns, records) in zip(sources, several, strict=True):
            write(source, columns, records)
        assert_same(read_csv(sources), import_csv(sources, Path(folder) / "trace").load())
        targets = export_csv(Path(folder) / "trace", Path(folder) / "out.csv")
        for target, (columns, records) in zip(targets, several, strict=True):
            header, back = read(target)
            assert header == columns
            assert bits(back) == bits(records)


def test_a_file_in_our_own_spelling_comes_back_byte_for_byte(tmp_path):
    content = (
        "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm,Note\n"
        '0,<s>,22,394,12.75,\n0,<s>,22,4036,0.1,NA\n1,",",23,7,1e-300,"a\nb"\n1,",",22,7,-0.0," x"\n'
    )
    (tmp_path / "in.csv").write_text(content)
    export_csv(read_csv(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == content


@pytest.mark.parametrize(
    "text",
    ["\x1b]0;t\x07", "\x9b2J", "\0", "\r", "\u202e", "=SUM(A1)", "+cmd|' /C calc'!A0", "@x(", "\uff1dHYPERLINK(1)"],
)
@pytest.mark.parametrize("place", ["Token", "cell", "name"])
def test_nothing_in_an_export_commands_a_terminal_or_a_spreadsheet_and_import_reads_it_back(tmp_path, text, place):
    record = dict(zip(CSV_COLUMNS, (0, text if place == "Token" else "a\\", 1, 2, 0.5), strict=True))
    record[text if place == "name" else "Note"] = text if place == "cell" else "b"
    write(tmp_path / "in.csv", list(record), [record])
    dataset = read_csv(tmp_path / "in.csv")
    (tmp_path / "out").mkdir()
    export_csv(dataset, tmp_path / "out" / "in.csv")
    content = (tmp_path / "out" / "in.csv").read_text("utf-8")
    assert text not in content
    assert all(char == "\n" or char.isprintable() for char in content)
    assert_same(dataset, read_csv(tmp_path / "out" / "in.csv"))


@pytest.mark.parametrize(
    "text", ["=", "==", "-", "-1", "+x", "@property", "=>", "a=b(c)", "\n", "\t", "\\x1b", "\u200d"]
)
def test_a_token_that_commands_nothing_is_written_as_it_is(tmp_path, text):
    record = dict(zip(CSV_COLUMNS, (0, text, 1, 2, 0.5), strict=True))
    write(tmp_path / "in.csv", CSV_COLUMNS, [record])
    export_csv(read_csv(tmp_path / "in.csv"), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream))[1][1] == text


def test_rows_longer_than_a_block_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("stratoscope.trace.export.csv._BLOCK_ROWS", 7)
    rng = np.random.default_rng(0)
    records = [
        dict(zip(CSV_COLUMNS, (position, f"t{position}", int(rng.integers(9)), n, float(rng.random())), strict=True))
        for n, position in enumerate(rng.integers(0, 12, 100).tolist())
    ]
    write(tmp_path / "in.csv", CSV_COLUMNS, records)
    export_csv(read_csv(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")[1] == records


@pytest.mark.parametrize("order", [CSV_COLUMNS, CSV_COLUMNS[::-1]])
def test_every_token_of_a_mixed_file_keeps_its_rows(tmp_path, order):
    records = [dict(zip(CSV_COLUMNS, (n % 3, "abc"[n % 3], 0, n, float(n)), strict=True)) for n in range(12)]
    write(tmp_path / "in.csv", order, records)
    dataset = read_csv(tmp_path / "in.csv")
    rows = sorted(zip(dataset["row_token"].values.tolist(), dataset["row_neuron"].values.tolist(), strict=True))
    found = {token: [neuron for _, neuron in group] for token, group in groupby(rows, key=lambda row: row[0])}
    assert found == {0: [0, 3, 6, 9], 1: [1, 4, 7, 10], 2: [2, 5, 8, 11]}


@pytest.mark.parametrize("escape", [r"\Uffffffff", r"\U00110000", r"\ud800", r"\udfff", r"\udc7f"])
@pytest.mark.parametrize("place", ["token", "column", "value"])
def test_an_escape_that_stands_for_no_character_is_refused_with_its_row_and_column(tmp_path, escape, place):
    token, column, value = (escape if place == one else "x" for one in ("token", "column", "value"))
    rows = f"0,a,0,1,0.5,y,\\\n1,{token},0,1,0.5,{value},\\\n"
    (tmp_path / "a.csv").write_text(f"{','.join(CSV_COLUMNS)},{column},Escapes\n{rows}")
    with pytest.raises(InputError) as caught:
        read_csv(tmp_path / "a.csv")
    assert caught.value.what == f"{escape} is an escape that stands for no character"
    assert {"token": "row 2, column Token", "column": "the name of a column", "value": "row 2, column x"}[
        place
    ] in caught.value.where
    assert r"as \\, or leave out" in caught.value.fix


def test_an_escape_of_a_byte_that_is_no_text_by_itself_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(f"{','.join(CSV_COLUMNS)},Escapes\n0,\\udcff\\U0010ffff\\udc80,0,1,0.5,\\\n")
    assert read_csv(tmp_path / "a.csv")["text"].values.tolist() == ["\udcff\U0010ffff\udc80"]


@pytest.mark.parametrize("columns", [(r"\u0054oken",), (r"\u0041", "A"), ("A", r"\u0041"), (r"\u0041", r"\U00000041")])
def test_a_column_that_once_its_escapes_are_read_has_the_name_of_another_is_refused(tmp_path, columns):
    cells = ",".join("x" for _ in columns)
    text = f"{','.join((*CSV_COLUMNS, *columns))},Escapes\n0,a,0,1,0.5,{cells},\\\n"
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=r"has the name of another one\. Give every column its own name"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(text.replace(",\\\n", ",x\n"))  # no escapes, so these are names as any other
    read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("values", [("x", "\\"), ("\x1b", "\\u0041")])
def test_a_column_of_somebodys_own_that_is_called_escapes_comes_back(tmp_path, values):
    columns = [*CSV_COLUMNS, "Escapes"]
    write(tmp_path / "a.csv", columns, [dict(zip(columns, (0, "a", 0, 1, 0.5, one), strict=True)) for one in values])
    export_csv(read_csv(tmp_path / "a.csv"), tmp_path / "b.csv")
    assert read(tmp_path / "b.csv") == read(tmp_path / "a.csv")
    again = read_csv(tmp_path / "b.csv")["column_0"]
    assert (again.attrs["column"], tuple(again.values)) == ("Escapes", values)
