"""The search for smaller networks, for any network."""
