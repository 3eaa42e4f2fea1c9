"""What recording holds at once does not grow with layers × tokens × width."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from stratoscope.recorder.input.grouping import WINDOW_TOKENS, windows

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MIB = 2**20
TOKENS, WIDTH, FEW, MANY = 4096, 512, 2, 12
SCRIPT = "import sys; from long_prompt import peak; print(*peak('recorded', *map(int, sys.argv[1:])))"


def peak_and_size(layers: int) -> tuple[int, int]:
    """Peak of memory above the loaded model, and bytes of the trace's arrays, in a fresh process."""
    command = [sys.executable, "-c", SCRIPT, *map(str, (TOKENS, layers, WIDTH, WIDTH))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *sys.path])}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    peak, size = map(int, done.stdout.split()[-2:])
    return peak, size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory")
def test_ten_more_layers_of_a_long_prompt_need_only_room_for_what_is_recorded_of_them() -> None:
    (few, small), (many, large) = peak_and_size(FEW), peak_and_size(MANY)
    if many - few > large - small:  # what a busy machine has not yet written or freed only adds to a peak: look again
        many = min(many, peak_and_size(MANY)[0])
    residual = 4 * TOKENS * WIDTH * (MANY - FEW)  # one float32 tensor as wide as the residual stream, kept per layer
    growth, recorded = many - few, large - small
    words = f"{growth / MIB:.0f} MiB more for {recorded / MIB:.0f} MiB of arrays; all residuals: {residual / MIB:.0f}"
    assert growth < residual, words


def test_a_run_of_prompts_that_wait_in_memory_is_bounded_by_their_tokens() -> None:
    half = WINDOW_TOKENS // 2
    assert list(windows([10] * 7, 3)) == [range(3), range(3, 6), range(6, 7)]
    assert list(windows([10] * 7, 3, start=3)) == [range(3, 6), range(6, 7)]
    assert list(windows([half] * 5, 32)) == [range(2), range(2, 4), range(4, 5)]
    assert list(windows([2 * WINDOW_TOKENS, 1, 1, 2 * WINDOW_TOKENS], 32)) == [range(1), range(1, 3), range(3, 4)]
    assert list(windows([], 3)) == list(windows([1, 1], 3, start=2)) == []
    chance = random.Random(0)
    lengths = [chance.randrange(1, WINDOW_TOKENS) for _ in range(200)]
    whole = list(windows(lengths, 4))
    assert [index for part in whole for index in part] == list(range(200))
    for number, part in enumerate(whole):  # a recording that goes on at the end of a run makes the same runs
        assert list(windows(lengths, 4, start=part.start)) == whole[number:]
