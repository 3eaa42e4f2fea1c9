"""What is proved about a recording: checks, replays, the noise floor, the receipt."""
