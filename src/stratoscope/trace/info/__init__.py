"""What is in a trace and what was proved about it: as JSON, and as text to read."""
