"""Targets of a source: which columns the user names, and what their values are."""
