"""What a trace is on disk: its arrays, its root document, checksums, sizes, places; and what is refused."""
