"""The ways in: the command line and the demo. Thin, no maths."""
