"""The level `aggregate`: means of classes of prompts that differ, and what our own attack finds in those of neurons."""
