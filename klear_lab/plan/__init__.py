"""What a run would take, worked out before it starts: memory, tokens, hours."""
