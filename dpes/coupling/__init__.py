"""Which filters of a network hang together, and how they are cut out of it."""
