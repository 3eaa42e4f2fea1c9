"""Every recorded quantity computed anew, with no code of the reducers, and how far recorded values are from it."""
