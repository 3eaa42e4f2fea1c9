"""Arguments of `capture` as people give them in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import byte_tokenizer, tiny  # noqa: E402

from stratoscope import Prompt, capture  # noqa: E402
from stratoscope.errors import InputError  # noqa: E402
from stratoscope.recorder.answers.settings import answers_of  # noqa: E402
from stratoscope.recorder.arguments import dtype_name, file_or_list  # noqa: E402
from stratoscope.recorder.parts import checked_part  # noqa: E402

TEXTS = ["Hello there", "Bye now"]


class Somewhere:
    """A path of neither str nor pathlib."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def run(out: Any, prompts: Any = TEXTS, **options: Any) -> Any:
    return capture(tiny("Llama"), prompts, out, tokenizer=byte_tokenizer(), **{"record": "norms", **options})


def test_one_record_group_is_one_text_and_numbers_may_be_of_numpy(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", record=["norms", "peaks"], top_k=3, generate=2, seed=1)
    same = run(
        Somewhere(tmp_path / "b"),
        (text for text in TEXTS),
        record="peaks,norms",
        top_k=np.int64(3),
        batch_size=np.int32(8),
        generate=np.int64(2),
        seed=np.uint8(1),
        part=(np.int64(1), np.int64(1)),
    )
    assert plain.attrs["plan"]["record"] == same.attrs["plan"]["record"] == ["norms", "peaks"]
    for name in ("mlp_out_norm", "peak_value"):
        np.testing.assert_array_equal(plain[name], same[name])


@pytest.mark.parametrize("record", ["norm", ["norm"], "mlp_out_norm"])
def test_an_unknown_record_group_is_named_whole(tmp_path: Path, record: Any) -> None:
    named = record if isinstance(record, str) else record[0]
    with pytest.raises(InputError, match=f"no record group called '{named}'"):
        run(tmp_path / "t", record=record)


@pytest.mark.parametrize(
    "prompts", ["Hello there", "Hello\nthere", "Hello " * 100, Prompt("a", text="b"), {"text": "b"}, None, 3]
)
def test_a_prompt_that_is_not_in_a_list_is_told_so(tmp_path: Path, prompts: Any) -> None:
    with pytest.raises(InputError, match=r'given as a list: \["Hello there", …\]'):
        run(tmp_path / "t", prompts)


def test_files_of_prompts_are_given_as_any_path(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Hello\n")
    assert file_or_list(Somewhere(tmp_path / "p.txt")) == tmp_path / "p.txt"
    assert file_or_list("missing.txt") == "missing.txt"  # refused where files are read
    assert run(tmp_path / "t", Somewhere(tmp_path / "p.txt")).sizes["prompt"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, np.float32, np.dtype("float32"), "float32", "torch.float32"], ids=str)
def test_a_dtype_may_come_from_torch_or_numpy(dtype: Any) -> None:
    assert dtype_name(dtype) == "float32"
    assert dtype_name(torch.bfloat16) == "bfloat16"
    assert dtype_name(None) is None


def test_settings_of_generation_may_be_text_and_hold_numbers_of_numpy() -> None:
    as_text = answers_of(1, '{"do_sample": true, "temperature": 0.5}', 0, None)
    as_numpy = answers_of(1, {"do_sample": True, "temperature": np.float64(0.5)}, np.int64(0), None)
    assert as_text.settings == as_numpy.settings == {"do_sample": True, "temperature": 0.5}
    assert type(as_numpy.settings["temperature"]) is float


def test_openers_in_one_text_are_refused_with_the_list_to_write() -> None:
    with pytest.raises(InputError, match=r"Use \['Sure', 'No'\]"):
        answers_of(1, None, 0, "Sure|No")


@pytest.mark.parametrize("part", ["1-2", "1/2/3", "two/3", (1.0, 2), (True, 2), (1, 2, 3)])
def test_a_part_is_two_whole_numbers(part: Any) -> None:
    with pytest.raises(InputError):
        checked_part(part)


@pytest.mark.parametrize("wrong", [{"top_k": 3.0}, {"batch_size": "8"}, {"top_k": True}, {"generate": 1.5}])
def test_what_is_no_whole_number_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}: .* is not a whole number"):
        run(tmp_path / "t", **wrong)
