"""A record as it may be published: rewritten at a stated level, or attacked as a stranger would."""
