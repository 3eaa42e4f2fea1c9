"""The trace: schema, committed writer, safe reader, CSV, export. Never needs torch."""
