"""What promotes and what suppresses a target token: by layer, neuron and head, of prompts and of classes."""
