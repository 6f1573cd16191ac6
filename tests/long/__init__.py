"""Runs that take as long as they are given: C{python -m tests.long --seconds 60}."""
