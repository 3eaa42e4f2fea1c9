"""What a picture shows: which prompts, layers and tokens, and which quantity."""
