"""Reading CSV files: nothing is lost, whichever of the two readers is used."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.csv import table as csv_table
from stratoscope.trace.csv.columns import Wanted
from stratoscope.trace.csv.file import text_file
from stratoscope.trace.csv.header import read_header
from stratoscope.trace.csv.read import read_csv
from stratoscope.trace.csv.rows import read_rows
from stratoscope.trace.info.facts import info, info_text

HEADER = ",".join(names.CSV_COLUMNS)
AWKWARD = [
    "null",
    "NA",
    "nan",
    "",
    '"',
    ",",
    "\n",
    "\r\n",
    "\r",
    " leading",
    "trailing ",
    "=cmd",
    "▁Explain",
    "😀",
    "a\0b",
    "\u2028",
    "1",
    "True",
]


def write(path: Path, rows: list[tuple[object, ...]], header: str = HEADER, end: str = "\n") -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(header + end)
        csv.writer(stream, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return path


def test_awkward_tokens_survive_as_they_stand(tmp_path):
    file = write(tmp_path / "p.csv", [(n, token, 0, n, 1.5) for n, token in enumerate(AWKWARD)])
    assert read_csv(file)["text"].values.tolist() == AWKWARD


def test_the_quick_reader_handles_awkward_tokens_without_help(tmp_path, monkeypatch):
    file = write(tmp_path / "p.csv", [(n, token, 0, n, 1.5) for n, token in enumerate(AWKWARD)])
    monkeypatch.setattr(csv_table, "read_rows", lambda *_: pytest.fail("fell back to the slow reader"))
    assert read_csv(file)["text"].values.tolist() == AWKWARD


def test_values_are_the_nearest_doubles(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**63, 20_000, dtype=np.uint64).view(np.float64)
    doubles = bits[np.isfinite(bits)].tolist()
    texts = [repr(value) for value in doubles] + [f"0.{n:019d}123456789" for n in range(1, 4000, 7)]
    file = tmp_path / "p.csv"
    file.write_text(HEADER + "\n" + "".join(f"0,a,0,{n},{text}\n" for n, text in enumerate(texts)), encoding="utf-8")
    expected = np.array([float(text) for text in texts])
    assert read_csv(file)["imported_norm"].values.view(np.int64).tolist() == expected.view(np.int64).tolist()


def test_both_readers_accept_the_same_numbers_and_agree_on_them(tmp_path):
    spellings = ["1", "01", "+2", " 3 ", "4.0", "5.", "6e0", "7E+0"]
    rows = "".join(f"{text},a,0,0,{text}\n" for text in spellings)
    file = tmp_path / "p.csv"
    file.write_text(f"{HEADER}\n{rows}", encoding="utf-8")
    text = text_file(file)
    header = read_header(text, Wanted())
    quick, exact = csv_table._read_quickly(text, header), read_rows(text, header).columns
    assert quick is not None
    for column in names.CSV_COLUMNS:
        assert quick[column].tolist() == exact[column]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", [HEADER, ",".join(f'"{column}"' for column in names.CSV_COLUMNS)])
def test_line_ends_byte_order_marks_and_quoted_headers_do_not_matter(tmp_path, encoding, end, header):
    file = tmp_path / "p.csv"
    file.write_bytes(end.join([header, "0,<s>,22,7,0.5", "1,▁a,22,8,0.25", ""]).encode(encoding))
    dataset = read_csv(file)
    assert dataset["text"].values.tolist() == ["<s>", "▁a"]
    assert dataset["imported_norm"].values.tolist() == [0.5, 0.25]


def test_blank_lines_are_not_rows(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text(f"\n{HEADER}\n\n0,a,0,1,1\n\n0,a,0,2,2\n\n", encoding="utf-8")
    assert read_csv(file)["row_neuron"].values.tolist() == [1, 2]


def test_rows_keep_file_order_while_tokens_stand_by_position(tmp_path):
    file = write(tmp_path / "p.csv", [(5, "c", 1, 3, 0.1), (2, "b", 0, 9, 0.2), (5, "c", 0, 1, 0.3)])
    dataset = read_csv(file)
    assert dataset["position"].values.tolist() == [2, 5]
    assert dataset["text"].values.tolist() == ["b", "c"]
    assert dataset["row_token"].values.tolist() == [1, 0, 1]
    assert dataset["row_layer"].values.tolist() == [1, 0, 0]
    assert dataset["layer"].values.tolist() == [0, 1]


def test_a_repeated_token_text_stays_two_tokens(tmp_path):
    file = write(tmp_path / "p.csv", [(0, "the", 0, 1, 1.0), (1, "the", 0, 1, 2.0)])
    assert read_csv(file)["text"].values.tolist() == ["the", "the"]


def test_files_become_prompts_in_their_order_with_classes_or_stems(tmp_path):
    files = [write(tmp_path / f"{stem}.csv", [(0, stem, 3, 1, 1.0)]) for stem in ("neutral", "critical")]
    assert read_csv(files)["prompt_class"].values.tolist() == ["neutral", "critical"]
    named = read_csv(files, prompt_class=["b", "a"])
    assert named["prompt_class"].values.tolist() == ["b", "a"]
    assert named["prompt"].values.tolist() == [0, 1]
    assert named["text"].values.tolist() == ["neutral", "critical"]


def test_files_of_one_name_become_prompts_of_different_ids(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
    files = [write(tmp_path / folder / "p.csv", [(0, "x", 0, 0, 1.0)]) for folder in "aab"]
    assert read_csv(files)["prompt_id"].values.tolist() == ["p", "p-2", "p-3"]


def test_special_tokens_are_recognised_and_nothing_else_is(tmp_path):
    special = ["<s>", "</s>", "<|im_start|>", "[CLS]", "<pad>"]
    plain = ["<sx>", "[x]", "s", "<", "|>", "<|"]
    file = write(tmp_path / "p.csv", [(n, token, 0, 0, 1.0) for n, token in enumerate(special + plain)])
    expected = [names.SPANS.index("special")] * len(special) + [-1] * len(plain)
    assert read_csv(file)["span"].values.tolist() == expected


def test_further_columns_are_kept_as_text_and_missing_ones_are_empty(tmp_path):
    first = write(tmp_path / "a.csv", [("007", 0, "x", 0, 0, 1.0, "NA")], header=f"Run,{HEADER},Note")
    second = write(tmp_path / "b.csv", [(0, "y", 0, 0, 1.0)])
    dataset = read_csv([first, second])
    assert {dataset[name].attrs["column"] for name in ("column_0", "column_1")} == {"Run", "Note"}
    assert dataset["column_0"].values.tolist() == ["007", ""]
    assert dataset["column_1"].values.tolist() == ["NA", ""]


def test_thousands_of_further_columns_are_refused_at_once_with_the_one_limit_there_is(tmp_path):
    columns = [f"c{number}" for number in range(3000)]
    file = write(tmp_path / "p.csv", [(0, "a", 0, 0, 1.0, *columns)], header=",".join([HEADER, *columns]))
    begun = time.perf_counter()
    with pytest.raises(InputError, match="3,005 columns; 5 and up to 100 further ones are read"):
        read_csv(file)
    assert time.perf_counter() - begun < 10, "it took half a minute"


def test_a_token_is_as_long_as_it_is(tmp_path):
    file = write(tmp_path / "p.csv", [(0, "x" * 200_000, 0, 0, 1.0), (1, "y" * 200_000, 0, 0, 1.0)])
    before = csv.field_size_limit(2**17)
    try:
        assert read_csv(file)["text"].values.tolist() == ["x" * 200_000, "y" * 200_000]
    finally:
        csv.field_size_limit(before)


def test_empty_text_in_the_last_column_is_not_taken_for_a_short_row(tmp_path, monkeypatch):
    rows = [(0, "a,b", 0, 0, 1.0, ""), (1, "c", 0, 0, 2.0, "x, y")]
    file = write(tmp_path / "p.csv", rows, header=f'{HEADER},"note, more"')
    monkeypatch.setattr(csv_table, "read_rows", lambda *_: pytest.fail("fell back to the slow reader"))
    assert read_csv(file)["column_0"].values.tolist() == ["", "x, y"]


def test_repeated_rows_are_kept_and_counted_in_a_note(tmp_path):
    rows = [(0, "a", 0, 5, 1.0), (0, "a", 1, 5, 1.0), (0, "a", 0, 5, 2.0), (0, "a", 0, 5, 1.0), (1, "b", 0, 5, 1.0)]
    dataset = read_csv(write(tmp_path / "p.csv", rows))
    assert dataset.sizes["row"] == 5
    notes = {item["id"]: item for item in dataset.attrs["notes"]}
    assert notes["L04"]["text"].startswith("2 rows")
    assert notes["L04"]["severity"] == "warning"


def test_every_note_of_an_import_is_a_line_of_the_list(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text(f"# a comment\n{HEADER.replace(',', ';')}\n" + "0;a;0;5;1,5\n" * 2)
    notes = read_csv(file).attrs["notes"]
    assert [(item["id"], item["severity"]) for item in notes[1:3]] == [("L26", "info"), ("L26", "info")]
    assert "as written" not in info_text(info(read_csv(file))), "all that was written was read"
    listed = (Path(__file__).parents[2] / "docs" / "pitfalls.md").read_text()
    assert all(f"**{item['id']}. " in listed for item in notes)


def test_repeated_rows_are_counted_even_where_ids_are_as_large_as_they_may_be(tmp_path):
    huge = 2**31 - 1
    rows = [(n, "a", huge - n % 2, huge - n % 3, 1.0) for n in range(9)] + [(4, "a", huge, huge - 1, 1.0)]
    table = csv_table.read_table(write(tmp_path / "p.csv", rows))
    assert table.repeated_rows() == 1


def test_a_file_without_repeated_rows_has_no_note_about_them(tmp_path):
    dataset = read_csv(write(tmp_path / "p.csv", [(0, "a", 0, 5, 1.0), (0, "a", 5, 0, 1.0)]))
    assert [item["id"] for item in dataset.attrs["notes"]] == ["L08"]


def test_an_import_says_what_it_is(tmp_path):
    file = write(tmp_path / "p.csv", [(0, "a", 22, 4036, 0.5)])
    dataset = read_csv(file, axis="residual")
    assert (dataset.attrs["source"], dataset.attrs["axis"]) == ("imported", "residual")
    assert dataset.attrs["token_spelling"] == "tokenizer"
    assert dataset["imported_norm"].attrs["source"] == "imported"
    assert dataset["imported_norm"].dtype == np.float64
    assert {name: dataset[name].dtype.str[1:] for name in ("row_token", "row_layer", "row_neuron", "position")} == {
        "row_token": "i8",
        "row_layer": "i4",
        "row_neuron": "i4",
        "position": "i4",
    }
    assert str(tmp_path) not in str(dataset.attrs)


@pytest.mark.parametrize(
    "arguments", [{"prompt_class": ["a", "b", "c"]}, {"prompt_class": []}, {"prompt_class": "ab"}, {"axis": "depth"}]
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, arguments):
    file = write(tmp_path / "p.csv", [(0, "a", 0, 0, 1.0)])
    with pytest.raises(InputError, match=next(iter(arguments))):
        read_csv([file, file], **arguments)


def test_one_text_is_the_class_of_one_file_and_several_may_come_one_by_one(tmp_path):
    file = write(tmp_path / "p.csv", [(0, "a", 0, 0, 1.0)])
    assert read_csv(file, prompt_class="critical")["prompt_class"].values.tolist() == ["critical"]
    assert read_csv((file for _ in "ab"), prompt_class=iter("ab"))["prompt_class"].values.tolist() == ["a", "b"]


def test_no_file_at_all_is_refused():
    with pytest.raises(InputError, match="no CSV file"):
        read_csv([])


def test_the_example_and_the_error_in_the_documentation_are_true(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "csv.md").read_text(encoding="utf-8")
    blocks = page.split("```")[1::2]
    example, error = blocks[0].removeprefix("csv\n"), blocks[1].strip()
    (tmp_path / "example.csv").write_text(example, encoding="utf-8")
    assert read_csv(tmp_path / "example.csv")["text"].values.tolist() == ["<s>", "▁Explain", ","]
    (tmp_path / "neutral.csv").write_text(f"{HEADER}\n0,<s>,22,1,1\n0,<s>,L22,1,1\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_csv(tmp_path / "neutral.csv")
    assert str(caught.value).removeprefix(f"{tmp_path}/") == error
