"""Bad CSV files: one line that says file, line, column, value, and what to do."""

import time
import warnings

import pytest

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.csv.read import read_csv

HEADER = ",".join(names.CSV_COLUMNS)
GOOD = "0,<s>,22,5,0.5"


def refusal(tmp_path, content):
    file = tmp_path / "prompt.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            read_csv(file)
    message = str(caught.value)
    assert "\n" not in message
    assert str(file) in message
    assert caught.value.fix
    return message


BAD_CELLS = {
    "text for a position": ("x,a,22,5,0.5", "Token_Pos", "'x' is not a number"),
    "text for a layer": ("1,a,L22,5,0.5", "Layer", "'L22' is not a number"),
    "text for a neuron": ("1,a,22,n5,0.5", "Neuron_ID", "'n5' is not a number"),
    "text for a value": ("1,a,22,5,strong", "Activation_Norm", "'strong' is not a number"),
    "a truth for a value": ("1,a,22,5,True", "Activation_Norm", "'True' is not a number"),
    "underscores": ("1,a,22,5,1_000", "Activation_Norm", "'1_000' is not a number"),
    "other digits": ("1,a,٢٢,5,0.5", "Layer", "'٢٢' is not a number"),
    "an empty value": ("1,a,22,5,", "Activation_Norm", "empty"),
    "an empty layer": ("1,a,,5,0.5", "Layer", "empty"),
    "nan": ("1,a,22,5,nan", "Activation_Norm", "'nan' is not a finite number"),
    "infinity": ("1,a,22,5,-inf", "Activation_Norm", "'-inf' is not a finite number"),
    "a value beyond float64": ("1,a,22,5,1e400", "Activation_Norm", "'1e400' is too large"),
    "a negative position": ("-1,a,22,5,0.5", "Token_Pos", "'-1' is negative"),
    "a negative layer": ("1,a,-22,5,0.5", "Layer", "'-22' is negative"),
    "a negative neuron": ("1,a,22,-5,0.5", "Neuron_ID", "'-5' is negative"),
    "a neuron beyond int32": ("1,a,22,2147483648,0.5", "Neuron_ID", "larger than 2147483647"),
    "a neuron beyond int64": ("1,a,22,99999999999999999999,0.5", "Neuron_ID", "larger than 2147483647"),
    "a neuron that wraps to 2": ("1,a,22,4294967298.0,0.5", "Neuron_ID", "larger than 2147483647"),
    "half a neuron": ("1,a,22,5.5,0.5", "Neuron_ID", "'5.5' is not a whole number"),
}


@pytest.mark.parametrize(("row", "column", "problem"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_a_bad_value_is_named_with_line_and_column(tmp_path, row, column, problem):
    message = refusal(tmp_path, f"{HEADER}\n{GOOD}\n{row}\n{GOOD}\n")
    assert f"line 3, column {column}: " in message
    assert problem in message


@pytest.mark.parametrize(("row", "column", "problem"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_a_bad_value_is_found_even_in_the_only_row(tmp_path, row, column, problem):
    message = refusal(tmp_path, f"{HEADER}\n{row}\n")
    assert f"line 2, column {column}: " in message
    assert problem in message


def test_the_first_bad_row_is_the_one_that_is_named(tmp_path):
    assert "line 4, column Layer" in refusal(tmp_path, f"{HEADER}\n{GOOD}\n{GOOD}\n0,<s>,x,5,1\n0,<s>,5,5,x\n")


def test_lines_are_counted_as_an_editor_does_where_tokens_hold_line_breaks(tmp_path):
    rows = f'{HEADER}\r\n0,"a\nb",22,5,0.5\r\n\r\n1,"\r\n",22,5,0.5\r\n2,c,22,5,x\r\n'
    assert "line 7, column Activation_Norm: 'x'" in refusal(tmp_path, rows)


def test_two_tokens_at_one_position_are_named_with_both_lines(tmp_path):
    message = refusal(tmp_path, f"{HEADER}\n0,<s>,22,5,1\n1,a,22,5,1\n0,b,23,5,1\n")
    assert "line 4, column Token: position 0 holds 'b' here and '<s>' on line 2" in message


def test_a_long_value_is_shortened_in_the_message(tmp_path):
    assert len(refusal(tmp_path, f"{HEADER}\n0,a,22,5,{'x' * 5000}\n")) < 400


LONG_CELLS = {
    "a name": (f"{HEADER},{'1' * 20_000}x\n1,a,22,5\n", "line 2: 4 values"),
    "a comment": (f"# {'1' * 20_000}x\n{HEADER}\n1,a,22,5\n", "line 3: 4 values"),
    "a value": (f"{HEADER}\n1,a,22,5,{'1' * 20_000}x\n", "Activation_Norm"),
    "a value with a comma": (f"{HEADER.replace(',', ';')}\n1;a;22;5;{'1' * 20_000},5x\n", "Activation_Norm"),
    "a layer": (f"{HEADER}\n1,a,{'1' * 20_000}x,5,1\n", "Layer"),
}


@pytest.mark.parametrize(("content", "cause"), LONG_CELLS.values(), ids=LONG_CELLS)
def test_a_long_cell_that_is_nearly_a_number_takes_no_time(tmp_path, content, cause):
    begun = time.perf_counter()
    assert cause in refusal(tmp_path, content)
    assert time.perf_counter() - begun < 2, "it took minutes"


@pytest.mark.parametrize(("row", "count"), [("1,a,22,5", 4), ("1,a,22,5,0.5,9", 6), ("1,a,22,5,0.5,", 6), ("1", 1)])
@pytest.mark.parametrize("place", [2, 3])
def test_rows_of_another_length_are_named(tmp_path, row, count, place):
    rows = [row, GOOD] if place == 2 else [GOOD, row]
    message = refusal(tmp_path, "\n".join([HEADER, *rows, ""]))
    assert f"line {place}: {count} values where the header names 5 columns" in message


def test_a_short_row_is_found_where_the_last_column_is_text(tmp_path):
    content = "Token_Pos,Layer,Neuron_ID,Activation_Norm,Token\n0,22,5,0.5,a\n1,22,5,0.5\n"
    assert "line 3: 4 values where the header names 5 columns" in refusal(tmp_path, content)


def test_an_open_quote_is_named_where_it_begins(tmp_path):
    assert "line 3: this is not valid CSV" in refusal(tmp_path, f'{HEADER}\n{GOOD}\n1,"a,22,5,0.5\n2,b,22,5,0.5\n')


def test_missing_columns_are_named_with_what_was_found(tmp_path):
    message = refusal(tmp_path, "Token,Layer,Norm\na,1,2\n")
    assert "line 1: the header lacks the columns Token_Pos, Neuron_ID, Activation_Norm" in message
    assert "'Norm'" in message


def test_columns_named_twice_are_refused(tmp_path):
    assert "names 'Layer' more than once" in refusal(tmp_path, f"{HEADER},Layer\n{GOOD},1\n")


@pytest.mark.parametrize("content", ["", "\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, content):
    assert "the file is empty" in refusal(tmp_path, content)


@pytest.mark.parametrize("content", [HEADER, f"{HEADER}\n", f"{HEADER}\r\n\r\n"])
def test_a_header_without_rows_is_refused(tmp_path, content):
    assert "no row" in refusal(tmp_path, content)


def test_bytes_that_are_no_utf8_are_named_with_their_line(tmp_path):
    content = f"{HEADER}\n{GOOD}\n1,".encode() + b"caf\xe9,22,5,0.5\n"
    assert "line 3: the byte 0xE9 is not UTF-8" in refusal(tmp_path, content)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="folder"):
        read_csv(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_csv(tmp_path / "none.csv")


def test_one_bad_file_among_good_ones_is_the_one_that_is_named(tmp_path):
    for name, row in (("good", GOOD), ("bad", "0,a,1,1,x")):
        (tmp_path / f"{name}.csv").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(InputError, match=r"bad\.csv, line 2"):
        read_csv([tmp_path / "good.csv", tmp_path / "bad.csv"])
