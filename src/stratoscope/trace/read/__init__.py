"""Reading a trace from disk, also one from a stranger, as a lazy Dataset."""
