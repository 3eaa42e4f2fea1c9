"""What promotes and what suppresses a target token: along the depth, by neuron and by head, of prompts and of classes."""
