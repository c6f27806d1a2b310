"""How figures and tables are drawn and written, whatever they show."""
