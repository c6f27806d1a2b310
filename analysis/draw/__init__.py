"""Draws and writes figures and tables, whatever they show."""
