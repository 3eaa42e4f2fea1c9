"""CSV files as people have them: packed, of other encodings, separators and names; each read right, or refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import re
import shlex
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS
from stratoscope.trace.csv import table as csv_table
from stratoscope.trace.csv.read import import_csv, read_csv
from stratoscope.trace.export.csv import export_csv
from stratoscope.trace.opened import dataset_of, opened, opened_each

HEADER = ",".join(CSV_COLUMNS)
ROWS = ["0,<s>,22,394,12.75", "1,▁Hi,22,5,0.5", "1,▁Hi,23,6,3"]
PLAIN = "\n".join([HEADER, *ROWS, ""])
VALUES = [12.75, 0.5, 3.0]
NUMBERED = "Token_Pos=1,Token=2,Layer=3,Neuron_ID=4,Activation_Norm=5"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def named(header: str, rows: list[str] = ROWS) -> str:
    return "\n".join([header, *rows, ""])


def zipped(members: dict[str, str | bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def encrypted(content: bytes) -> bytes:
    data = bytearray(content)
    data[data.find(b"PK\x03\x04") + 6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def assert_plain(dataset):
    assert dataset["position"].values.tolist() == [0, 1]
    assert dataset["text"].values.tolist() == ["<s>", "▁Hi"]
    assert dataset["row_layer"].values.tolist() == [22, 22, 23]
    assert dataset["row_neuron"].values.tolist() == [394, 5, 6]
    assert dataset["imported_norm"].values.tolist() == VALUES


def refusal(file: Path, **arguments) -> str:
    with pytest.raises(InputError) as caught:
        read_csv(file, **arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    return str(caught.value)


def advised(message: str) -> str:
    """The option of a message, as a shell gives it to the command."""
    found = re.search(r"`(--columns .*?)`(\.$| \(in Python)", message)
    assert found, message
    option, text = shlex.split(found[1])
    assert option == "--columns"
    return text


# --- how it is packed and encoded -----------------------------------------------------------------------------------

PACKED = {
    "gzip": ("critical.csv.gz", gzip.compress(PLAIN.encode())),
    "gzip under another name": ("critical.csv", gzip.compress(PLAIN.encode())),
    "several gzip members": ("critical.gz", gzip.compress(PLAIN[:60].encode()) + gzip.compress(PLAIN[60:].encode())),
    "bzip2": ("critical.csv.bz2", bz2.compress(PLAIN.encode())),
    "xz": ("critical.csv.xz", lzma.compress(PLAIN.encode())),
    "zip": ("critical.zip", zipped({"export 1.csv": PLAIN})),
    "zip with folders and clutter": (
        "critical.csv.zip",
        zipped({"d/": "", "d/a.csv": PLAIN, "__MACOSX/d/._a.csv": "x", "d/.DS_Store": "x"}),
    ),
    "zip whose names lead out of it": ("critical.zip", zipped({"../../outside.csv": PLAIN})),
    "UTF-16 in gzip": ("critical.csv.gz", gzip.compress(PLAIN.encode("utf-16"))),
    **{
        code: ("critical.csv", PLAIN.encode(code))
        for code in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig")
    },
    "two byte order marks": ("critical.csv", b"\xef\xbb\xbf" * 2 + PLAIN.replace("Token_Pos", '"Token_Pos"').encode()),
    "Unicode text of Excel": ("critical.txt", PLAIN.replace(",", "\t").replace("\n", "\r\n").encode("utf-16")),
}


@pytest.mark.parametrize(("name", "content"), PACKED.values(), ids=PACKED)
def test_packed_and_otherwise_encoded_files_read_as_the_plain_one(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(csv_table, "read_rows", lambda *_: pytest.fail("fell back to the slow reader"))
    dataset = read_csv(write(tmp_path / name, content))
    assert_plain(dataset)
    assert dataset["prompt_id"].values.tolist() == ["critical"]
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing is unpacked beside it


UNREADABLE = {
    "two files in a zip": ("a.zip", zipped({"a.csv": PLAIN, "b.csv": PLAIN}), "holds 2 files ('a.csv', 'b.csv')"),
    "nothing in a zip": ("a.zip", zipped({}), "empty zip"),
    "only clutter in a zip": ("a.zip", zipped({"__MACOSX/x": ""}), "holds no file"),
    "a password": ("a.zip", encrypted(zipped({"a.csv": PLAIN})), "asks for a password"),
    "a cut-off zip": ("a.zip", zipped({"a.csv": PLAIN})[:70], "damaged or cut off"),
    "gzip in a zip": ("a.zip", zipped({"a.csv.gz": gzip.compress(PLAIN.encode())}), "is no CSV text"),
    "a cut-off gzip": ("a.csv.gz", gzip.compress(PLAIN.encode())[:-12], "damaged or cut off"),
    "a damaged gzip": ("a.csv.gz", gzip.compress(PLAIN.encode())[:-8] + b"\0" * 8, "damaged or cut off"),
    "a cut-off xz": ("a.csv.xz", lzma.compress(PLAIN.encode())[:-12], "damaged or cut off"),
    "a tar archive": ("a.tar.gz", gzip.compress(b"a.csv".ljust(257, b"\0") + b"ustar\0" + b"\0" * 249), "no CSV text"),
    "nothing in a gzip": ("a.csv.gz", gzip.compress(b""), "the file is empty"),
    "Zstandard": ("a.csv.zst", b"(\xb5/\xfd1234", "zstd -d"),
    "7z": ("a.7z", b"7z\xbc\xaf\x27\x1c", "7z archive"),
    "a picture": ("a.csv", b"\x89PNG\r\n\x1a\n", "this is a picture"),
    "a pickle": ("a.csv", b"\x80\x04\x95abc", "can run code"),
    "an older pickle": ("a.csv", pickle.dumps([1], 2), "can run code"),
    "JSON": ("a.csv", '{"Token_Pos": 0}', "this is JSON"),
    "a web page": ("a.csv", "<!DOCTYPE html><html>", "web page"),
    "bytes": ("a.csv", b"\0\1\2\x80" * 200, "not a text file"),
}


@pytest.mark.parametrize(("name", "content", "cause"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_refused_with_its_cause(tmp_path, name, content, cause):
    message = refusal(write(tmp_path / name, content))
    assert cause in message
    assert str(tmp_path / name) in message


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: zipped({"a.csv": data})])
def test_a_small_file_that_unpacks_to_very_much_is_refused_before_it_is_read(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(defaults, "UNPACKED_BYTES", 2**20)
    monkeypatch.setattr(csv_table, "read_header", lambda *_: pytest.fail("began to read it"))
    file = write(tmp_path / "bomb.csv.x", pack(PLAIN.encode() + b"1,\xe2\x96\x81Hi,23,6,3\n" * 100_000))
    assert file.stat().st_size < 10_000
    assert "unpack to more than" in refusal(file)


def test_a_megabyte_that_unpacks_to_a_gigabyte_is_refused_long_before_its_end(tmp_path):
    file = write(tmp_path / "bomb.csv.gz", gzip.compress(b"0" * 2**24) * 64)
    begun = time.perf_counter()
    assert "unpack to more than" in refusal(file)
    assert time.perf_counter() - begun < 5


def test_a_pipe_and_standard_input_are_refused_instead_of_read_by_half(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "write what comes out of it to a file" in refusal(tmp_path / "pipe")
    assert "Standard input is not read" in refusal(Path("-"))


@pytest.mark.parametrize(
    ("name", "ending", "pack"),
    [
        ("it's old", ".csv.gz", gzip.compress),
        ("it's old", ".csv.bz2", bz2.compress),
        ("it's old", ".csv.xz", lzma.compress),
        ("it's old", ".zip", lambda data: zipped({"$(touch harm) `touch harm` \"'.csv": data})),
        *((name, ".csv", bytes) for name in ("it's old", "$(touch harm)", "`touch harm`", 'a" "b; touch harm', "-c")),
    ],
)
def test_text_of_old_windows_is_converted_by_the_line_that_is_given(tmp_path, name, ending, pack):
    file = write(tmp_path / f"{name}{ending}", pack(PLAIN.replace("▁Hi", "café").encode("cp1252")))
    other = write(tmp_path / f"{name}-utf8.csv", "precious")
    message = refusal(file)
    assert "line 3: the byte 0xE9 is not UTF-8" in message
    assert run_line(message, tmp_path) == (tmp_path / f"{name}-utf8-2.csv")
    assert read_csv(tmp_path / f"{name}-utf8-2.csv")["text"].values.tolist() == ["<s>", "café"]
    assert other.read_text() == "precious"


@pytest.mark.parametrize("content", [PLAIN.encode("utf-16") + b"\0\xd8", PLAIN.encode() + b"\xe9\x81\n"])
def test_text_that_is_not_of_old_windows_gets_no_line(tmp_path, content):
    assert refusal(write(tmp_path / "p.csv", content)).endswith("Save the file in the encoding UTF-8.")


@pytest.mark.parametrize("name", ["a\nb.csv", "a\tb.csv", "a\x1b[31mb.csv", "a\x7fb.csv", "a\u202eb.csv"])
def test_a_file_whose_name_cannot_be_pasted_is_told_so(tmp_path, name):
    fix = refusal(write(tmp_path / name, PLAIN.replace("▁Hi", "café").encode("cp1252"))).partition("UTF-8. ")[2]
    assert "rename it" in fix
    assert "python -c" not in fix


def run_line(message: str, folder: Path) -> Path:
    """Run the `python -c` line of a message by a shell, which makes one file and nothing else."""
    line = message[message.index("python -c ") :].removesuffix("`.")
    programs = folder.parent / f"{folder.name} bin"
    programs.mkdir(exist_ok=True)
    if not (programs / "python").exists():
        (programs / "python").symlink_to(sys.executable)
    before = set(folder.iterdir())
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(line, shell=True, check=True, capture_output=True, cwd=folder, env=environment)
    (made,) = set(folder.iterdir()) - before
    return made


SPREADSHEETS = {
    "xlsx": (zipped({"[Content_Types].xml": "", "xl/workbook.xml": ""}), "openpyxl"),
    "xlsb": (zipped({"xl/workbook.bin": ""}), "pyxlsb"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xlrd"),
    "ods": (zipped({"mimetype": "", "content.xml": ""}), "odfpy"),
    "feather": (b"ARROW1\0\0", "pyarrow"),
}


@pytest.mark.parametrize("ending", SPREADSHEETS)
def test_a_spreadsheet_is_refused_with_a_line_of_python_and_what_it_needs(tmp_path, ending):
    content, package = SPREADSHEETS[ending]
    message = refusal(write(tmp_path / f"my table.{ending}", content))
    assert f"pip install pandas {package}" in message
    program, option, code, source, target = shlex.split(message[message.index("python -c ") :].removesuffix("`."))
    compile(code, "line", "exec")
    assert (program, option) == ("python", "-c")
    assert (source, target) == (str(tmp_path / f"my table.{ending}"), str(tmp_path / "my table.csv"))
    write(tmp_path / "my table.csv", PLAIN)
    assert str(tmp_path / "my table-2.csv") in refusal(tmp_path / f"my table.{ending}"), "a file would be replaced"
    assert 'mode="x"' in code, "a file that came since would be replaced"


def test_the_line_for_excel_keeps_every_token_as_text(tmp_path):
    """`openpyxl` itself may be absent; pandas is then given what it would have read."""
    tokens = ["NA", "null", "1", "=SUM(A1)", "TRUE", ""]
    rows = [list(CSV_COLUMNS), *([n, token, 22, 7, 0.1] for n, token in enumerate(tokens))]
    if missing := _missing("openpyxl"):
        file = write(tmp_path / "table.xlsx", SPREADSHEETS["xlsx"][0])
    else:
        import openpyxl

        file, book = tmp_path / "table.xlsx", openpyxl.Workbook()
        for row in rows:
            book.active.append(["'" + cell if cell == "=SUM(A1)" else cell for cell in row])
        book.save(file)
    message = refusal(file)
    if missing:
        arguments = shlex.split(message[message.index("python -c ") :].removesuffix("`."))[1:]
        failed = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
        assert "openpyxl" in failed.stderr  # pandas itself says what is absent, as the message does
        return
    run_line(message, tmp_path)
    assert [text.lstrip("'") for text in read_csv(tmp_path / "table.csv")["text"].values.tolist()] == tokens


def _missing(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is None


# --- separators and decimal marks -----------------------------------------------------------------------------------

SEPARATED = {
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "Excel's own first line": "sep=;\n" + PLAIN.replace(",", ";"),
    "another separator that Excel names": "sep=:\n" + PLAIN.replace(",", ":"),
    "semicolons and decimal commas": PLAIN.replace(",", ";").replace(".", ","),
    "tabs and decimal commas": PLAIN.replace(",", "\t").replace(".", ","),
    "whole numbers with decimal commas": PLAIN.replace(",", ";").replace(".", ",").replace("22;", "22,0;"),
    "empty rows of Excel": PLAIN + ",,,,\n,,,,\n",
    "old Mac line ends": PLAIN.replace("\n", "\r"),
}


@pytest.mark.parametrize("content", SEPARATED.values(), ids=SEPARATED)
def test_other_separators_and_a_decimal_comma_between_semicolons_are_read(tmp_path, content):
    assert_plain(read_csv(write(tmp_path / "p.csv", content)))


def test_a_decimal_comma_that_comes_late_is_read_and_told(tmp_path):
    rows = [f"{n};a;1;2;{n}" for n in range(50)] + ["50;a;1;2;1,5e-3"]
    dataset = read_csv(write(tmp_path / "p.csv", named(HEADER.replace(",", ";"), rows)))
    assert dataset["imported_norm"].values[-1] == 1.5e-3
    assert "a comma was read as the decimal mark" in dataset.attrs["notes"][1]["text"]


def test_decimal_commas_read_back_as_the_nearest_doubles(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "read_rows", lambda *_: pytest.fail("fell back to the slow reader"))
    doubles = np.random.default_rng(0).lognormal(0, 20, 3000).tolist()
    rows = [f"0;a;0;{n};{value!r}".replace(".", ",") for n, value in enumerate(doubles)]
    dataset = read_csv(write(tmp_path / "p.csv", named(HEADER.replace(",", ";"), rows)))
    assert dataset["imported_norm"].values.tolist() == doubles


AMBIGUOUS = {
    "both marks": (
        PLAIN.replace(",", ";").replace("12.75", "12,75"),
        "'0.5' has a decimal point, and '12,75' on line 2",
    ),
    "a decimal comma between commas": (PLAIN.replace("12.75", '"12,75"'), "which is not read where commas separate"),
    "one unquoted": (PLAIN.replace("12.75", "12,75"), "Activation_Norm has a decimal comma, 12,75"),
    "1,234": (PLAIN.replace("12.75", '"1,234"'), "'1,234' can mean 1.234 as well as 1234"),
    "thousands": (PLAIN.replace("12.75", '"1,234,567"'), "thousands separator"),
    "thousands and a point": (PLAIN.replace("12.75", '"1,234.5"'), "thousands separator"),
    "points for thousands": (PLAIN.replace(",", ";").replace("12.75", "1.234,5"), "thousands separator"),
    "spaces for thousands": (PLAIN.replace("12.75", "1 234.5"), "thousands separator"),
    "narrow spaces": (PLAIN.replace("12.75", "1\u202f234.5"), "thousands separator"),
    "a neuron that is four thousand or four": (PLAIN.replace(",", ";").replace("394", "4.000"), "thousands separator"),
}


@pytest.mark.parametrize(("content", "cause"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_number_that_could_mean_another_is_refused_with_the_true_cause(tmp_path, content, cause):
    message = refusal(write(tmp_path / "p.csv", content))
    assert cause in message
    assert "Leave out" not in message
    assert "remove the row" not in message


def test_an_unquoted_comma_as_token_is_not_taken_for_a_decimal_comma(tmp_path):
    message = refusal(write(tmp_path / "p.csv", named(HEADER, ["0,,,22,394,5"])))
    assert "6 values where the header names 5 columns. Quote values that hold a comma" in message


ODD_ROWS = {
    "two files in one": (PLAIN + PLAIN, "line 5: the header stands here again"),
    "two files in one, marked": (PLAIN + "\ufeff" + PLAIN, "line 5: the header stands here again"),
    "a separator at the end of rows": (named(HEADER, [row + "," for row in ROWS]), "a comma stands at the end"),
    "a separator at the end of the header": (named(HEADER + ","), "a comma stands at the end of the header"),
    "row names of R": (named(HEADER, [f'"{n}",{row}' for n, row in enumerate(ROWS)]), "row.names"),
    "a comment below": (PLAIN + "# end\n", "comments stand before the header only"),
    "NA for a value": (PLAIN.replace("12.75", "NA"), "'NA' is not a number"),
    "an overflow": (PLAIN.replace("12.75", "inf"), "comes from a computation that overflowed"),
    "a space after every comma": (PLAIN.replace(",", ", "), "may belong to the tokens or not"),
    "no separator": (PLAIN.replace(",", " "), "nothing separates columns"),
}


@pytest.mark.parametrize(("content", "cause"), ODD_ROWS.values(), ids=ODD_ROWS)
def test_odd_rows_are_refused_with_their_likeliest_reason(tmp_path, content, cause):
    assert cause in refusal(write(tmp_path / "p.csv", content))


# --- names of columns -----------------------------------------------------------------------------------------------

SAME_NAMES = {
    "case": HEADER.lower(),
    "spaces and signs": " Token Pos , Token ,LAYER,neuron-id,ActivationNorm",
    "a comment sign": "# " + HEADER,
    "comments above": '# made by x, y, "z\n#\n' + HEADER,
}


@pytest.mark.parametrize("header", SAME_NAMES.values(), ids=SAME_NAMES)
def test_case_spaces_and_comments_do_not_change_which_column_is_which(tmp_path, header):
    assert_plain(read_csv(write(tmp_path / "p.csv", named(header))))


def test_lines_of_comments_are_left_out_with_a_note(tmp_path):
    dataset = read_csv(write(tmp_path / "p.csv", "# one\n# two\n" + PLAIN))
    assert "2 lines of comments" in dataset.attrs["notes"][1]["text"]


OTHER_NAMES = [
    "pos,token,layer,neuron,value",
    "token,text,layer,neuron,act",
    "token_idx,token_str,layer_idx,neuron_idx,activation",
    "position,tok,block,feature,norm",
    "index,token,l,n,activation_value",
    '"pos, from 0",Token,layer,"it\'s ""n""",value',
]


@pytest.mark.parametrize("header", OTHER_NAMES[:5])
def test_other_names_are_refused_with_an_option_that_works_and_names_no_column_twice(tmp_path, header):
    file = write(tmp_path / "p.csv", named(header))
    message = refusal(file)
    assert "If these are they" in message
    option = advised(message)
    sources = [piece.partition("=")[2] for piece in option.split(",")]
    assert len(set(sources)) == len(sources)
    dataset = read_csv(file, columns=option)
    assert_plain(dataset)
    assert set(dataset.attrs["plan"]["files"][0]["columns"].values()) == set(header.split(","))


def test_names_with_commas_quotes_and_spaces_can_be_given_and_are_given_so(tmp_path):
    file = write(tmp_path / "p.csv", named('"tokenpos, counted",Token,Layer,"neuron ""n""\'s id",Activation_Norm'))
    option = r"""Token_Pos=tokenpos\, counted,Neuron_ID=neuron "n"'s id"""
    assert_plain(read_csv(file, columns=option))
    file = write(tmp_path / "q.csv", named('Token_Pos,Token,Layer,"Neuron, ID.",Activation_Normed'))
    assert_plain(read_csv(file, columns=advised(refusal(file))))


@pytest.mark.parametrize("name", ["Neuron ID\n.", "Neuron\tID!.", "Neuron ID.\x1b[1m", "Neuron_ID `a` $(x)'\"\\"])
def test_the_option_that_is_given_fits_names_of_any_characters(tmp_path, name):
    quoted = '"' + name.replace('"', '""') + '"'
    file = write(tmp_path / "p.csv", named(f"pos,Token,Layer,{quoted},Activation_Norm"))
    option = advised(refusal(file))
    assert_plain(read_csv(file, columns=option.replace("COLUMN", name.replace("\\", "\\\\"))))


def test_a_column_of_token_numbers_is_never_suggested_as_the_token(tmp_path):
    file = write(tmp_path / "p.csv", named("pos,token_id,token_str,layer,neuron,act", ["0,17,a,1,2,0.5"]))
    assert read_csv(file, columns=advised(refusal(file)))["text"].values.tolist() == ["a"]


@pytest.mark.parametrize("header", ["pos,tok,layer,xx,norm", "alpha,beta,layer,neuron,norm"])
def test_what_nobody_can_guess_is_left_to_the_person(tmp_path, header):
    message = refusal(write(tmp_path / "p.csv", named(header)))
    assert "=COLUMN" in advised(message)
    for name in header.split(","):
        assert repr(name) in message


def test_a_file_that_lacks_a_column_altogether_is_told_so(tmp_path):
    assert "every row needs all of" in refusal(write(tmp_path / "p.csv", "pos,token,layer,norm\n0,a,1,0.5\n"))


@pytest.mark.parametrize("first", ["", "0,1,2,3,4\n"], ids=["no header", "numbers of pandas"])
def test_a_file_without_names_is_refused_with_numbers_that_work(tmp_path, first):
    file = write(tmp_path / "p.csv", first + "\n".join(ROWS))
    message = refusal(file)
    assert ("the first line looks like a row" in message) == (not first)
    assert advised(message) == NUMBERED
    assert_plain(read_csv(file, columns=advised(message)))


def test_columns_without_names_may_stand_in_any_order_and_further_ones_are_kept(tmp_path):
    file = write(tmp_path / "p.csv", "x,22,<s>,394,12.75,0\nNA,22,▁Hi,5,0.5,1\n,23,▁Hi,6,3,1\n")
    dataset = read_csv(
        file, columns={"Token": 3, "Token_Pos": np.int64(6), "Layer": 2, "Neuron_ID": 4, "Activation_Norm": 5}
    )
    assert_plain(dataset)
    assert dataset["column_0"].attrs["column"] == "Column_1"
    assert dataset["column_0"].values.tolist() == ["x", "NA", ""]


def test_numbers_count_the_columns_of_a_file_with_a_header_too(tmp_path):
    file = write(tmp_path / "p.csv", named("p,t,l,n,a"))
    assert_plain(read_csv(file, columns=NUMBERED))


def test_a_chosen_column_takes_the_place_of_the_one_of_that_name(tmp_path):
    file = write(tmp_path / "p.csv", named(HEADER + ",Peak_Value", [f"{row},-{n}" for n, row in enumerate(ROWS, 1)]))
    dataset = read_csv(file, columns={"Activation_Norm": "Peak_Value"})
    assert dataset["imported_norm"].values.tolist() == [-1, -2, -3]
    assert dataset["column_0"].values.tolist() == ["12.75", "0.5", "3"]
    (written,) = export_csv(dataset, tmp_path / "out.csv")
    assert written.read_text().splitlines()[0] == f"{HEADER},Column_5"


def test_one_option_serves_files_with_and_without_the_other_names(tmp_path):
    files = [write(tmp_path / "a.csv", PLAIN), write(tmp_path / "b.csv", named(HEADER.replace("Token_Pos", "pos")))]
    dataset = read_csv(files, columns="Token_Pos=pos")
    assert dataset["imported_norm"].values.tolist() == VALUES * 2


WRONG_COLUMNS = {
    "the wrong way round": ({"pos": "Token_Pos"}, "Token_Pos=pos"),
    "no such column": ("Token_Pos=poss", "there is no column 'poss'"),
    "no such place": ("Token_Pos=9", "there is no such column"),
    "counted from 0": ("Token_Pos=0", "counted from 1"),
    "none of the five": ("Tokens=pos", "none of the five"),
    "no equals sign": ("pos", "cannot read 'pos'"),
    "nothing": ("", "cannot read"),
    "one twice": ("Token_Pos=pos,Token=pos", "named twice"),
    "a list": (["pos"], "is not a mapping"),
}


@pytest.mark.parametrize(("columns", "cause"), WRONG_COLUMNS.values(), ids=WRONG_COLUMNS)
def test_columns_that_cannot_be_meant_are_refused(tmp_path, columns, cause):
    file = write(tmp_path / "p.csv", named(HEADER.replace("Token_Pos", "pos")))
    assert cause in refusal(file, columns=columns)


def test_columns_without_a_name_are_kept_and_can_be_exported(tmp_path):
    content = named(f",{HEADER},,", [f"{n},{row},," for n, row in enumerate(ROWS)])
    dataset = read_csv(write(tmp_path / "p.csv", content))
    assert_plain(dataset)
    assert [dataset[f"column_{n}"].attrs["column"] for n in range(3)] == ["", "Column_7", "Column_8"]
    assert_plain(read_csv(export_csv(dataset, tmp_path / "out.csv")))


# --- Parquet --------------------------------------------------------------------------------------------------------


class TestParquet:
    @pytest.fixture
    def frame(self):
        pytest.importorskip("pyarrow")
        import pandas as pd

        return pd.read_csv(io.StringIO(PLAIN))

    def test_it_reads_as_the_csv(self, tmp_path, frame):
        frame.to_parquet(tmp_path / "critical.parquet")
        dataset = read_csv(tmp_path / "critical.parquet")
        assert_plain(dataset)
        assert dataset["prompt_id"].values.tolist() == ["critical"]

    def test_types_that_hold_the_same_numbers_and_further_columns_are_read(self, tmp_path, frame):
        frame = frame.astype({"Token": "category", "Layer": "float64", "Activation_Norm": "float32"})
        frame.assign(note=["a", None, "b"], run=[1, 2, 3]).to_parquet(tmp_path / "p.parquet")
        dataset = read_csv(tmp_path / "p.parquet")
        assert_plain(dataset)
        assert dataset["column_0"].values.tolist() == ["a", "", "b"]
        assert dataset["column_1"].values.tolist() == ["1", "2", "3"]

    def test_other_names_are_mapped_as_those_of_a_csv(self, tmp_path, frame):
        frame.rename(columns={"Token_Pos": "pos"}).to_parquet(tmp_path / "p.parquet")
        assert_plain(read_csv(tmp_path / "p.parquet", columns=advised(refusal(tmp_path / "p.parquet"))))

    def test_what_was_exported_comes_back_as_it_was(self, tmp_path, frame):
        frame.to_parquet(tmp_path / "p.parquet")
        trace = import_csv(tmp_path / "p.parquet", tmp_path / "p.trace")
        export_csv(trace, tmp_path / "again.parquet", parquet=True)
        export_csv(trace, tmp_path / "again.csv")
        assert_plain(read_csv(tmp_path / "again.parquet"))
        assert (tmp_path / "again.csv").read_text() == PLAIN.replace("6,3\n", "6,3.0\n")

    @pytest.mark.parametrize(
        ("column", "values", "cause"),
        [
            ("Token", ["a", None, "b"], "row 2, column Token: the value is missing"),
            ("Token", [1, 2, 2], "column Token: it is of the type int64"),
            ("Token", ["a", "b", "c"], "row 3, column Token: position 1 holds 'c' here and 'b' in row 2"),
            ("Activation_Norm", ["1", "2", "3"], "column Activation_Norm: it is of the type"),
            ("Activation_Norm", [1, np.inf, 2], "row 2, column Activation_Norm: 'inf' is not a finite number"),
            ("Layer", [22, -1, 3], "row 2, column Layer: '-1' is no whole number"),
            ("Neuron_ID", [1, 2, 2.5], "row 3, column Neuron_ID: '2.5' is no whole number"),
        ],
    )
    def test_what_cannot_be_used_is_named_with_its_row(self, tmp_path, frame, column, values, cause):
        frame.assign(**{column: values}).to_parquet(tmp_path / "p.parquet")
        assert cause in refusal(tmp_path / "p.parquet")

    def test_a_damaged_or_empty_one_is_refused(self, tmp_path, frame):
        frame.to_parquet(tmp_path / "p.parquet")
        write(tmp_path / "cut.parquet", (tmp_path / "p.parquet").read_bytes()[:-20])
        assert "cannot be read as Parquet" in refusal(tmp_path / "cut.parquet")
        frame[:0].to_parquet(tmp_path / "none.parquet")
        assert "no row" in refusal(tmp_path / "none.parquet")

    def test_a_small_one_with_very_many_rows_is_refused(self, tmp_path, frame, monkeypatch):
        monkeypatch.setattr(defaults, "UNPACKED_BYTES", 2**20)
        frame[:1].loc[[0] * 400_000].to_parquet(tmp_path / "p.parquet", index=False)
        assert "unpack to more than" in refusal(tmp_path / "p.parquet")

    @pytest.mark.parametrize(
        "how", [{}, {"use_dictionary": False, "compression": "zstd"}], ids=["one text in each row", "packed"]
    )
    def test_a_small_one_of_few_rows_that_unpacks_to_very_much_is_refused(self, tmp_path, frame, monkeypatch, how):
        pyarrow = pytest.importorskip("pyarrow")
        monkeypatch.setattr(defaults, "UNPACKED_BYTES", 2**22)
        rows = pyarrow.Table.from_pandas(frame[:1].loc[[0] * 300].assign(Token="x" * 2**16), preserve_index=False)
        pyarrow.parquet.write_table(rows, tmp_path / "p.parquet", **how)
        assert (tmp_path / "p.parquet").stat().st_size < 10_000
        assert "unpack to more than" in refusal(tmp_path / "p.parquet")

    def test_without_pyarrow_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        assert "pip install 'stratoscope[parquet]'" in refusal(write(tmp_path / "p.parquet", b"PAR1PAR1"))


def test_a_column_that_no_file_has_is_no_other_name_for_one_that_is_there(tmp_path):
    plain, other = write(tmp_path / "a.csv", PLAIN), write(tmp_path / "b.csv", PLAIN.replace("Token_Pos", "pos", 1))
    for files in (plain, [plain, plain]):
        for verb in (import_csv, opened, dataset_of):
            with pytest.raises(InputError, match=r"no file has a column 'psition'\. There are: Token_Pos, Token,"):
                verb(files, columns="Token_Pos=psition")
    assert len(opened([plain, other], columns="Token_Pos=pos")["prompt_id"]) == 2, "one of them has it"
    assert len(opened_each([plain, other], columns="Token_Pos=pos")) == 2
    assert_plain(import_csv(plain, columns="Token=token"))
