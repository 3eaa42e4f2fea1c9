"""What the files of a model hold, before and after a library has opened them; what of it cannot be used is refused."""
