"""Writes the report: one page of everything, and the files beside it."""
