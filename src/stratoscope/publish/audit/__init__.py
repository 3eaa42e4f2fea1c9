"""What a written file still tells: opened as a stranger would, and every byte of it searched."""
