"""The answer of a comparison of jobs, and the tables that are made of it."""
