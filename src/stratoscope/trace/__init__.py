"""The trace: schema, committed writer, safe reader, CSV, simulated traces. Never needs torch."""
