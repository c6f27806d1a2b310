"""What a problem is: its prompt, its teacher's trace, its verifier. One file a task."""
