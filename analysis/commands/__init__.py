"""Holds the commands of `python -m analysis`, one in each file."""
