"""Masks and where they come from: exact selection, patterns, and zeros held in every copy of a weight."""
