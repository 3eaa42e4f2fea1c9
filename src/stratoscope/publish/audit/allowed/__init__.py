"""Whether a written file holds what its level lists and nothing else."""
