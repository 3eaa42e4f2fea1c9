"""What was published before of which prompts, and what two publications of the same prompts give away."""
