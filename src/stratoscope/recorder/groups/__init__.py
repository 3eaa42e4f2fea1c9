"""Record groups, one file each: what the recorder, the proof, the simulator and the checks know of a group.

A group is found by its name: `attention-full` of `names.RECORD_GROUPS` is `GROUP` of the file `attention_full.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from stratoscope.names import QUANTITIES, RECORD_GROUPS
from stratoscope.recorder.groups.group import RecordGroup


def _named(name: str) -> RecordGroup:
    group = import_module(f"{__name__}.{name.replace('-', '_')}").GROUP
    assert isinstance(group, RecordGroup)
    assert group.name == name
    return group


_OTHER = RecordGroup()
GROUPS: dict[str, RecordGroup] = {name: _named(name) for name in RECORD_GROUPS}


def groups_of(record: Iterable[str]) -> list[RecordGroup]:
    """The groups of these names, in the order of `names.RECORD_GROUPS`."""
    wanted = {*record}
    return [group for name, group in GROUPS.items() if name in wanted]


def group_of(quantity: str) -> RecordGroup:
    """The group that brings a quantity; of one that no `--record` brings, a group that says nothing of it."""
    return GROUPS.get(QUANTITIES[quantity].group, _OTHER)
