"""docs/results.md names every table and variable of a result with its dimensions, and none that no result has."""

from __future__ import annotations

import pytest
from every_result import EVERY

from result_tables import documented, made


@pytest.mark.parametrize("kind", EVERY)
def test_the_page_has_every_variable_of_every_table_and_no_other(kind: str) -> None:
    found = made(EVERY[kind]())
    assert found <= documented(kind)
    assert {one for one in documented(kind) - found if not one[0].startswith("null")} == set()
