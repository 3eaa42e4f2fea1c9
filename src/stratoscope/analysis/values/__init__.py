"""Values of a trace as statistics take them: layer by layer, as tables, finite, token beside equal token."""
