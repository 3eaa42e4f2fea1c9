"""What a command costs: CPU seconds and the most memory of a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import stratoscope

# A process inherits the peak of the one that it was forked from, and a test runner's is large: a small one stands
# between. It limits the command, so that a bound that is missing does not take the machine with it.
_BETWEEN = """
import json, os, resource, subprocess, sys
seconds, memory, *command = json.loads(sys.argv[1])
def limit():
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         preexec_fn=limit)
import threading
timer = threading.Timer(seconds * 2, child.kill)
timer.start()
said = child.stdout.read(100_000)
while child.stdout.read(1_000_000):
    pass
_, status, used = os.wait4(child.pid, 0)
timer.cancel()
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, os.waitstatus_to_exitcode(status),
                  said.decode("utf-8", "replace")]))
"""
_COMMAND = "import sys; from stratoscope.doors.cli import main; sys.argv[0] = 'stratoscope'; main()"


@dataclass(frozen=True)
class Cost:
    """CPU seconds, most bytes resident, exit code (negative: killed), and the beginning of what it printed."""

    seconds: float
    memory: int
    code: int
    said: str


def cost(*arguments: object, seconds: int = 60, memory: int = 12 * 2**30) -> Cost:
    """Run the command line in a process of its own, killed beyond that much CPU time or address space."""
    command = [sys.executable, "-c", _COMMAND, *map(str, arguments)]
    source = Path(stratoscope.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _BETWEEN, json.dumps([seconds, memory, *command])],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    return Cost(*json.loads(done.stdout))
