"""`python -m stratoscope`."""

from stratoscope.doors.cli import main

main()
