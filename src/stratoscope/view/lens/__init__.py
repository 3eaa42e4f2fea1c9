"""What lenses read at the tokens of a prompt, depth by depth: which are shown, the words in cells, trajectories."""
