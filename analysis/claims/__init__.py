"""Holds the paper's claims and judges them."""
