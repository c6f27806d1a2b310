"""Holds the paper's own numbers, and makes its tables and figures from them."""
