"""Holds the claims of the papers and judges them."""
