"""Reads mathematics: which part of a text is the answer, what it means, and whether two answers are equal."""
