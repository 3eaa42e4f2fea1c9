"""What the data of a trace make easy to misread: one check for each line of docs/pitfalls.md that data can trigger."""
