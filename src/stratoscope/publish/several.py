"""Several inputs, or a folder of them, published together into a new folder: all of them, or none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stratoscope import replacing
from stratoscope.disk import sync_tree
from stratoscope.errors import InputError, UsageError
from stratoscope.names import PRIVATE
from stratoscope.publish import inputs
from stratoscope.publish.asked import Asked
from stratoscope.publish.inputs import kind_of
from stratoscope.publish.ledger.ledger import ENDING
from stratoscope.publish.parts import Original, Part, part_of

_FOLDER = replacing.Kind("publication", "", lambda _: False, lambda *_: False, InputError)
_ENDINGS = {inputs.TRACE: ".trace"}


@dataclass(frozen=True)
class Several:
    """Parts that are published together.

    Attributes
    ----------
    parts
        Each with what it is made of.
    left_out
        What of a folder is not published, in sentences.
    """

    parts: tuple[tuple[Path, Part], ...]
    left_out: tuple[str, ...]

    @property
    def originals(self) -> list[Original]:
        """Whose prompts are shown, each original once, with all that is shown of it."""
        found: dict[Path, Original] = {}
        for one in (one for _, part in self.parts for one in part.originals):
            key = one.path.resolve()
            found[key] = found[key].with_more(one) if key in found else one
        return list(found.values())

    def write(self, out: Path) -> tuple[str, ...]:
        """Write all into a new folder, under names that say nothing; gives which is which, and what to know."""
        told, counts = list[str](), Counter[str]()
        new = replacing.making(out)
        with replacing.Lock(out, _FOLDER), replacing.refused(out):
            replacing.recover(out, _FOLDER)
            try:
                replacing.begin(new)
                for path, part in self.parts:
                    counts[part.kind] += 1
                    name = f"{part.kind}-{counts[part.kind]}{part.suffix or _ENDINGS.get(part.kind, '')}"
                    told += [f"{path.name} is published as {name}.", *part.write(new / name)]
                sync_tree(new)
                replacing.take_place(new, out, _FOLDER)
            finally:
                replacing.remove(new, _FOLDER)
        return tuple(dict.fromkeys([*told, *self.left_out]))


def several(paths: Sequence[Path], asked: Asked) -> Several:
    """What would be published of several inputs; a folder stands for what is in it.

    Of a folder what cannot be published is left out and told; what is named itself is refused, and all with it.

    Raises
    ------
    InputError
        One of them cannot be published at this level, or there is nothing that can.
    """
    found, left_out = list[tuple[Path, bool]](), list[str]()
    for path in paths:
        if kind_of(path) == inputs.FOLDER:
            _look_into(path, found, left_out)
        else:
            found.append((path, True))
    if twice := [path for path, count in Counter(path.resolve() for path, _ in found).items() if count > 1]:
        raise UsageError("is given twice", where=str(twice[0]), fix="Give it once.")
    found.sort(key=lambda one: kind_of(one[0]) != inputs.TRACE)  # what is refused of a trace says most
    traces = [path for path, _ in found if kind_of(path) == inputs.TRACE]
    asked, parts = replace(asked, traces=(*asked.traces, *traces)), list[tuple[Path, Part]]()
    for path, is_named in found:
        try:
            parts.append((path, part_of(path, asked)))
        except InputError as error:
            if is_named or kind_of(path) not in (inputs.PICTURE, inputs.PAGE):
                raise
            left_out.append(_not_published(path, error))
    if not parts:
        fix = "Give a trace, a result, CSV files, pictures or pages that Stratoscope made."
        raise InputError("holds nothing that can be published", where=str(paths[0]), fix=fix)
    if asked.level == PRIVATE:
        _refuse_budget(parts)
    return Several(tuple(parts), tuple(left_out))


def refuse_folder(out: Path) -> None:
    """Raise where no new folder can be made."""
    replacing.refuse_without_folder(out.absolute(), InputError)
    if os.path.lexists(out):
        fix = "Name a new folder: several inputs are published into one."
        raise InputError("already exists", where=str(out), fix=fix)


def _look_into(folder: Path, found: list[tuple[Path, bool]], left_out: list[str]) -> None:
    """What of a folder can be published, by name; hidden files and links are not looked at."""
    for path in sorted(folder.iterdir()):
        if path.name.endswith(ENDING):
            continue
        if path.name.startswith(".") or path.is_symlink():
            left_out.append(f"Not published: {path.name}, which is hidden or a link.")
            continue
        try:
            kind = kind_of(path)
        except InputError as error:
            left_out.append(_not_published(path, error))
            continue
        if kind == inputs.FOLDER:
            _look_into(path, found, left_out)
        else:
            found.append((path, False))


def _not_published(path: Path, error: InputError) -> str:
    return f"Not published: {path.name}, which {error.what}."


def _refuse_budget(parts: Sequence[tuple[Path, Part]]) -> None:
    """Raise where noise would be drawn more than once for the same prompts: every time costs ε again."""
    counts = Counter(one.path.resolve() for _, part in parts for one in part.originals)
    for path, count in counts.items():
        if count > 1:
            fix = "Publish the trace alone, and take the figures of that result."
            raise UsageError(
                f"its prompts would be published {count} times, and each costs ε", where=str(path), fix=fix
            )
