"""Attacks on what was published, as strong as those in the literature: each a file, plain arrays first."""
