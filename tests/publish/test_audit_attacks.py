"""An attack that succeeds is a finding where the level promises against it, and as the level says where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

import stratoscope
from stratoscope.doors.commands.audit import attack_rows, left_open
from stratoscope.errors import StratoscopeError
from stratoscope.names import AGGREGATE, NO_TEXT, PRIVATE, PROVENANCE, Level
from stratoscope.publish.attacks.outcome import Attack, Share, not_run
from stratoscope.publish.attacks.weights import DIRECTIONS, NORMS, PRODUCTS
from stratoscope.publish.audit.attacked import judged
from stratoscope.publish.audit.audit import audit
from stratoscope.publish.audit.outcome import NOT_FOUND, Attacked, Audit, Verdict

CHANCE = Share(0.5, 0.5, 0.5)


def attack(name: str, low: float) -> Attack:
    return Attack(name, "other prompts", Share(low + 0.1, low, low + 0.2), CHANCE, 40, "tokens")


def verdict(one: Attack, level: Level) -> Verdict:
    (found,) = judged(Path("a.trace"), level, [one])
    return found.verdict


@pytest.mark.parametrize(
    ("name", "promised"),
    [
        ("look-up of layers", [AGGREGATE, PRIVATE]),
        ("permutation matching", [AGGREGATE, PRIVATE]),
        ("norm matching", [AGGREGATE, PRIVATE]),
        ("differencing", [AGGREGATE, PRIVATE]),
        ("membership from class profiles", [PRIVATE]),
        ("norms of columns", []),
    ],
)
def test_what_succeeds_is_found_where_the_level_promises_against_it(name: str, promised: list[Level]) -> None:
    for level in (PROVENANCE, NO_TEXT, AGGREGATE, PRIVATE):
        wanted = "found" if level in promised else "as the level says"
        assert verdict(attack(name, 0.6), level) == wanted
        assert verdict(attack(name, 0.5), level) == "not found"
        assert verdict(not_run(name, "", "tokens", "no norms"), level) == "did not run"


def test_the_last_line_names_what_succeeds_and_nothing_that_the_level_says_itself() -> None:
    def said(*verdicts: Verdict) -> Audit:
        return Audit((), (), (), (), tuple(Attacked("a", attack("look-up", 0.6), one) for one in verdicts))

    assert said("as the level says", "did not run", "not found").last_line == NOT_FOUND
    assert said("found").last_line == "Found: more than by guessing, by look-up."
    assert said("found").found
    _, (row,) = attack_rows(said("found").attacks)
    assert row == ("look-up", "40 tokens", "70.0 % (60.0 % to 80.0 %)", "50.0 % (50.0 % to 50.0 %)", "found")


def test_of_several_files_each_attack_says_on_which_and_what_the_level_leaves_open_is_said_in_words() -> None:
    members = replace(attack("membership", 0.6), at_one_percent=attack("", 0.6).recovered)
    both = [Attacked("a", attack("look-up", 0.6), "as the level says"), Attacked("b", members, "as the level says")]
    columns, rows = attack_rows(both)
    assert (columns[0], rows[0][0], rows[1][0]) == ("on", "a", "b")
    assert rows[1][3].startswith("AUC 0.70 (0.60")  # no share of prompts
    assert left_open(both).endswith("does not promise against: look-up 70.0 %; membership AUC 0.70.")
    assert left_open([Attacked("a", attack("look-up", 0.6), "found")]) == ""


def test_every_attack_is_made_on_a_written_trace_and_those_that_cannot_be_say_why(
    simulated: xr.Dataset, tmp_path: Path
) -> None:
    from stratoscope.trace.write.from_dataset import write_dataset

    write_dataset(simulated, tmp_path / "a.trace")
    stratoscope.publish(tmp_path / "a.trace", tmp_path / "b.trace", level=NO_TEXT)
    found = audit(tmp_path / "b.trace")
    assert found.last_line == NOT_FOUND
    names = [one.attack.name for one in found.attacks]
    assert {"look-up", "membership", "differencing", "permutation matching", "norms of columns"} <= {*names}
    for one in found.attacks:
        assert (one.verdict == "did not run") == bool(one.attack.reason)
    unpromised = {name for name in names if verdict(attack(name, 0.6), PRIVATE) == "as the level says"}
    assert unpromised == {NORMS, DIRECTIONS, PRODUCTS}  # an attack under a new name would be let off


def test_the_original_is_not_taken_for_other_prompts(tmp_path: Path) -> None:
    mine = stratoscope.simulate(prompts=8, layers=1)
    with pytest.raises(StratoscopeError, match="reference: is the original itself"):
        audit(tmp_path, original=mine, reference=mine)
