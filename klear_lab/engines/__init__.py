"""Engines: which program owns the RL loop. `local` is klear_lab's own, in klear_lab/rl."""
