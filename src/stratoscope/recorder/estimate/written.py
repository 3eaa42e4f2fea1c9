"""What compression leaves: a few recorded batches are written as a trace, and its files are weighed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stratoscope.names import PROMPT, QUANTITIES, REAL, is_streamed
from stratoscope.recorder.blocks import to_block
from stratoscope.recorder.recording import Recording
from stratoscope.trace.format.schema import MAYBE_TOKEN_COORDS, ROOT_DOCUMENT, Block, known_layout
from stratoscope.trace.write.writer import TraceWriter

_TOKENS = 2**17  # of prompts that are written without being run: the columns of tokens shrink the more, the longer


@dataclass(frozen=True)
class Sample:
    """Bytes that the growing arrays of some prompts take on disk, and all else."""

    arrays: Mapping[str, int]
    fixed: int
    prompts: int
    tokens: int

    def scaled(self, prompts: int, tokens: int) -> dict[str, int]:
        """Bytes of each array for so many prompts and tokens."""
        found = {}
        for name, size in self.arrays.items():
            of_prompts = name in QUANTITIES and QUANTITIES[name].dims[0] == PROMPT
            found[name] = round(size * (prompts / self.prompts if of_prompts else tokens / self.tokens))
        return found


def quantities_sample(recording: Recording, blocks: Sequence[Block], folder: Path) -> Sample:
    """Write what was recorded of some batches, and weigh its quantities; streamed ones are left out.

    `folder` must be empty.
    """
    held = [name for name in recording.variables if not is_streamed(name)]
    groups = tuple(group for group in recording.plan.record if group in {QUANTITIES[name].group for name in held})
    with recording.only(groups).writer(folder / "quantities") as writer:
        for block in blocks:
            writer.append(block)
        writer.finish()
    arrays, fixed = _weighed(folder / "quantities")
    return Sample(
        {name: size for name, size in arrays.items() if name in QUANTITIES},
        fixed,
        sum(len(block.texts["prompt_id"]) for block in blocks),
        sum(len(block.texts["text"]) for block in blocks),
    )


def tokens_sample(recording: Recording, folder: Path) -> Sample:
    """Write the tokens of prompts from all over the file, unrun, and weigh them. `folder` must be empty."""
    prompts = tokens = 0
    path = folder / "tokens"
    with TraceWriter(
        path, attrs={"source": REAL}, layers=[0], sizes={}, variables=[*MAYBE_TOKEN_COORDS], at_once=True
    ) as writer:
        for index in _spread(recording.batched.lengths):
            encoded = recording.batched.encoded(index)
            writer.append(to_block([recording.prompts[index]], [encoded], [{}]))
            prompts, tokens = prompts + 1, tokens + len(encoded.ids)
        writer.finish()
    arrays, _ = _weighed(path)
    return Sample(arrays, 0, prompts, tokens)


def _spread(lengths: Sequence[int]) -> Iterator[int]:
    """Indices of prompts that have `_TOKENS` together, evenly spread over the file."""
    share = min(1.0, _TOKENS / sum(lengths))
    due = 0.0
    for index in range(len(lengths)):
        due += share
        if due >= 1 or not index:
            due -= 1
            yield index


def _weighed(trace: Path) -> tuple[dict[str, int], int]:
    """Bytes of every array that grows with the prompts, and of everything else."""
    arrays: dict[str, int] = {}
    fixed = 0
    for path in trace.rglob("*"):
        if path.is_file():
            layout = known_layout(path.parent.name)
            if path.name == ROOT_DOCUMENT or layout is None or not layout.grows:
                fixed += path.stat().st_size
            else:
                arrays[layout.name] = arrays.get(layout.name, 0) + path.stat().st_size
    return arrays, fixed
