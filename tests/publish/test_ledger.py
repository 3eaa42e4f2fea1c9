"""The ledger: no prompt is published twice unnoticed, whatever file it comes from and whenever a program is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stratoscope
from stratoscope import disk, names
from stratoscope.errors import InputError
from stratoscope.names import AGGREGATE, NO_TEXT, PRIVATE, PROVENANCE, Level
from stratoscope.publish.ledger.ledger import ENDING, Ledger
from stratoscope.publish.ledger.overlap import Published
from stratoscope.publish.ledger.prompt_keys import Contents, prompt_contents
from stratoscope.trace.prompts import Prompts

CONTENTS = [frozenset({f"prompt {number}".encode()}) for number in range(40)]
MEANS = Published(AGGREGATE, ("mlp_write_ratio",))


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return stratoscope.simulate(prompts=6, layers=2, d_ff=64, record=[names.PEAKS])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.beside(tmp_path / "words.trace")


def test_a_pipe_in_the_place_of_a_list_is_refused_and_not_waited_for(ledger: Ledger) -> None:
    os.mkfifo(ledger.path)
    with pytest.raises(InputError, match="is no list of publications"):
        ledger.check(MEANS, CONTENTS)


def test_one_prompt_less_is_refused_with_how_many_and_where(ledger: Ledger) -> None:
    ledger.record(MEANS, CONTENTS[:20])
    before = ledger.path.read_bytes()
    with pytest.raises(InputError) as refusal:
        ledger.record(MEANS, CONTENTS[:19])
    assert refusal.value.what.startswith("19 of these 19 prompts were published at aggregate on ")
    assert refusal.value.what.endswith("(line 2)")
    assert refusal.value.where.endswith("words.published.jsonl")
    assert "--allow-overlap" in refusal.value.fix
    assert "mean of 1 prompt exactly, to about 1e-6" in refusal.value.fix
    assert ledger.path.read_bytes() == before


def test_an_accepted_overlap_is_written_down_as_any_other(ledger: Ledger) -> None:
    ledger.record(MEANS, CONTENTS[:20])
    (cost,) = ledger.record(MEANS, CONTENTS[:19], allow_overlap=True)
    assert "mean of 1 prompt" in cost
    with pytest.raises(InputError, match=r"1 of these 1 prompt was published .* and some in 1 other publication") as of:
        ledger.check(MEANS, CONTENTS[:1])
    assert "mean of 19 prompts" in of.value.fix


def test_what_a_difference_of_aggregates_gives_is_as_the_ledger_says(ledger: Ledger) -> None:
    values = np.random.default_rng(0).lognormal(size=(20, 30)).astype(np.float32)
    all_of_them, but_one = values.mean(axis=0), values[1:].mean(axis=0)
    guessed = 20 * all_of_them.astype(np.float64) - 19 * but_one.astype(np.float64)
    error = np.linalg.norm(guessed - values[0]) / np.linalg.norm(values[0])
    assert error < 5e-6  # "exactly, to about 1e-6"
    rounded = 20 * np.round(all_of_them, 1) - 19 * np.round(but_one, 1)
    assert np.linalg.norm(rounded - values[0]) / np.linalg.norm(values[0]) > 0.1


@pytest.mark.parametrize(
    ("before", "after", "refused", "says"),
    [
        (PROVENANCE, NO_TEXT, False, ""),
        (NO_TEXT, PROVENANCE, False, ""),
        (AGGREGATE, PROVENANCE, True, "at aggregate no longer holds: No single prompt is shown."),
        (PRIVATE, NO_TEXT, True, "at private no longer holds: (ε, δ) per prompt."),
        (PRIVATE, AGGREGATE, True, "at private no longer holds: (ε, δ) per prompt."),
        (NO_TEXT, AGGREGATE, True, "shows them one by one: no promise of aggregate"),
        (PROVENANCE, PRIVATE, True, "shows them one by one: no promise of private"),
        (AGGREGATE, PRIVATE, True, "shows them without noise: no promise of private"),
        (AGGREGATE, AGGREGATE, True, "Both are of the same prompts"),
        (PRIVATE, PRIVATE, True, "together ε = 1.5 and δ = 2e−5 for one prompt"),
    ],
)
def test_only_two_levels_without_a_promise_may_show_a_prompt_twice(
    ledger: Ledger, before: Level, after: Level, refused: bool, says: str
) -> None:
    ledger.record(_of(before, 1.0), CONTENTS[:20])
    if refused:
        with pytest.raises(InputError) as refusal:
            ledger.record(_of(after, 0.5), CONTENTS[:20])
        assert says in refusal.value.fix
    told = ledger.record(_of(after, 0.5), CONTENTS[:20], allow_overlap=True)
    assert len(told) == int(refused)
    assert says in "".join(told)


def test_epsilon_is_that_of_the_prompt_that_was_published_most_often(ledger: Ledger) -> None:
    spend = Published(PRIVATE, (), 1.0, 1e-5)
    ledger.record(spend, CONTENTS[:20])
    ledger.record(spend, CONTENTS[19:39], allow_overlap=True)
    (told,) = ledger.check(spend, CONTENTS[20:39], allow_overlap=True)
    assert "ε = 2 and δ = 2e−5" in told
    (told,) = ledger.check(spend, CONTENTS, allow_overlap=True)
    assert "ε = 3 and δ = 3e−5" in told


def test_a_prompt_is_known_in_a_part_in_a_csv_file_and_under_another_model(trace: xr.Dataset, tmp_path: Path) -> None:
    whole = prompt_contents(trace)
    ledger = Ledger.beside(tmp_path / "whole.trace")
    ledger.record(MEANS, whole)
    part = prompt_contents(Prompts(trace).part(2, 4))
    assert part == whole[2:4]
    stratoscope.export_csv(trace, tmp_path / "one.csv", prompt=3)
    of_csv = prompt_contents(stratoscope.import_csv(tmp_path / "one.csv"))
    other = prompt_contents(trace.assign_coords(token_id=("token", trace["token_id"].values + 7)))
    for name, contents in (("part.trace", part), ("one.csv", of_csv), ("other.trace", other)):
        with pytest.raises(InputError, match=rf"whole.published.jsonl: {len(contents)} of these .* \(line 2\)"):
            Ledger.beside(tmp_path / name).check(MEANS, contents)


def test_a_prompt_without_ids_and_texts_is_refused(trace: xr.Dataset) -> None:
    with pytest.raises(InputError, match="neither the ids nor the texts"):
        prompt_contents(trace.drop_vars(["token_id", "text"]))


def test_an_answer_makes_no_other_prompt(trace: xr.Dataset) -> None:
    last = trace["prompt"].values != np.roll(trace["prompt"].values, -1)
    span = np.where(last, names.SPANS.index("generated"), trace["span"].values)
    answered = trace.assign_coords(span=("token", span.astype(np.int8)))
    other = answered.assign_coords(token_id=("token", trace["token_id"].values + last))
    assert prompt_contents(answered) == prompt_contents(other)
    assert prompt_contents(answered) != prompt_contents(trace)


def test_the_file_is_its_owners_and_names_no_prompt(ledger: Ledger) -> None:
    ledger.record(MEANS, CONTENTS[:20])
    ledger.record(MEANS, CONTENTS[20:])
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600
    first, *lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert len(bytes.fromhex(first["key"])) == 32
    assert [len(line["prompts"]) for line in lines] == [20, 20]
    assert "prompt 1" not in ledger.path.read_text().replace('"prompts"', "")
    assert list(ledger.path.parent.iterdir()) == [ledger.path]


def test_two_ledgers_have_two_keys(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Ledger.beside(tmp_path / name / "words.trace").record(MEANS, CONTENTS)
    lines = [(tmp_path / name / f"words{ENDING}").read_text().splitlines() for name in ("one", "two")]
    assert not {*lines[0]} & {*lines[1]}


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text[:-5], 3),
        (lambda text: text[:-1], 3),
        (lambda text: "", 1),
        (lambda text: text.replace('"key": "', '"key": "00'), 1),
        (lambda text: text.replace('"1.0"', '"9.0"'), 1),
        (lambda text: text.replace('"aggregate"', '"agregate"', 1), 2),
        (lambda text: text.replace('"epsilon": 0.0', '"epsilon": -1.0', 1), 2),
        (lambda text: text.replace('"prompts": [["', '"prompts": [[], ["', 1), 2),
        (lambda text: text + "\n", 4),
        (lambda text: "[" * 100_000, 1),
        (lambda text: text.replace('"epsilon": 0.0', f'"epsilon": {"9" * 400}', 1), 2),
    ],
)
def test_a_damaged_ledger_lets_nothing_be_published(ledger: Ledger, damage: object, line: int) -> None:
    ledger.record(MEANS, CONTENTS[:20])
    ledger.record(MEANS, CONTENTS[20:30])
    assert callable(damage)
    ledger.path.write_text(damage(ledger.path.read_text()))
    damaged = ledger.path.read_bytes()
    with pytest.raises(InputError, match=f"damaged in line {line}") as refusal:
        Ledger.beside(ledger.path.with_name("neighbour.trace")).record(MEANS, CONTENTS[30:])
    assert "backup" in refusal.value.fix
    assert [*ledger.path.parent.iterdir()] == [ledger.path]
    assert ledger.path.read_bytes() == damaged


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_a_ledger_was_turned_into_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ledger = Ledger.beside(tmp_path_factory.mktemp("ledger") / "words.trace")
    ledger.record(MEANS, CONTENTS[:2])
    content = bytearray(ledger.path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.sampled_from(b'0a"[]{},:\n\x00\xff'))
    ledger.path.write_bytes(content)
    with contextlib.suppress(InputError):
        ledger.check(MEANS, CONTENTS[:3], allow_overlap=True)


_RECORD = """
import os, signal, sys
from pathlib import Path
from stratoscope import disk
from stratoscope.errors import InputError
from stratoscope.publish.ledger.ledger import Ledger
from stratoscope.publish.ledger.overlap import Published
folder, kill_at, first, last = Path(sys.argv[1]), *map(int, sys.argv[2:])
steps = 0
def step(operation, path):
    global steps
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
disk.step = step
contents = [frozenset({f"prompt {number}".encode()}) for number in range(first, last)]
try:
    Ledger.beside(folder / "words.trace").record(Published("aggregate"), contents)
except InputError as error:
    sys.exit(error.what)
if kill_at == 0:
    os.kill(os.getpid(), signal.SIGKILL)  # recorded, and the output has not appeared
"""


def _run(folder: Path, kill_at: int, first: int, last: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _RECORD, str(folder), str(kill_at), str(first), str(last)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ)


@pytest.mark.parametrize("kill_at", [1, 3, 0])
def test_a_killed_program_leaves_the_old_ledger_or_one_that_counts_too_many(ledger: Ledger, kill_at: int) -> None:
    ledger.record(MEANS, CONTENTS[:20])
    process = _run(ledger.path.parent, kill_at, 20, 40)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    if kill_at == 0:
        with pytest.raises(InputError, match="20 of these 20"):
            ledger.record(MEANS, CONTENTS[20:])
    else:
        ledger.record(MEANS, CONTENTS[20:])
    assert [*ledger.path.parent.glob(f"*{ENDING}")] == [ledger.path]


def test_a_publication_that_failed_to_appear_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stratoscope.simulate(tmp_path / "mine.trace", prompts=2, layers=1, d_ff=16, record=[names.NORMS])

    def full(operation: str, path: Path) -> None:
        if "public.trace" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(disk, "step", full)
    with pytest.raises((stratoscope.StratoscopeError, OSError), match="space"):
        stratoscope.publish(tmp_path / "mine.trace", tmp_path / "public.trace", level=NO_TEXT)
    monkeypatch.undo()
    assert not (tmp_path / "public.trace").exists()
    contents = prompt_contents(stratoscope.open_trace(tmp_path / "mine.trace"))
    with pytest.raises(InputError, match="2 of these 2 prompts were published at no-text"):
        Ledger.beside(tmp_path / "mine.trace").check(MEANS, contents)


def test_of_two_programs_that_publish_at_once_one_is_refused(tmp_path: Path) -> None:
    both = [_run(tmp_path, -1, 0, 20) for _ in range(2)]
    said = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert "published at aggregate" in "".join(said) or "another process is writing" in "".join(said)
    with pytest.raises(InputError, match=r"20 of these 20 prompts were published .* \(line 2\)"):
        Ledger.beside(tmp_path / "words.trace").check(MEANS, CONTENTS[:20])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(names.LEVELS), st.sets(st.integers(0, 9), min_size=1)), max_size=5))
def test_whatever_is_published_in_whatever_order_a_promise_is_never_broken_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, given_away: list[tuple[Level, set[int]]]
) -> None:
    ledger = Ledger.beside(tmp_path_factory.mktemp("ledger") / "words.trace")
    out: list[tuple[Level, set[int]]] = []
    promising = (AGGREGATE, PRIVATE)
    for level, which in given_away:
        broken = [one[1] & which for one in out if one[1] & which and (one[0] in promising or level in promising)]
        contents: list[Contents] = [CONTENTS[one] for one in sorted(which)]
        if broken:
            with pytest.raises(InputError, match=f"^[^:]*: {max(map(len, broken))} of these {len(which)} prompt"):
                ledger.record(_of(level, 1.0), contents)
        else:
            ledger.record(_of(level, 1.0), contents)
            out.append((level, which))


def _of(level: Level, epsilon: float) -> Published:
    return Published(level, ("mlp_write_ratio",), *((epsilon, 1e-5) if level == PRIVATE else ()))
