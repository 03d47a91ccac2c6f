"""Recipes, runs and rivals of the reproducible study."""
