"""The RL stage: clip methods, advantages, rewards, rollouts, the trainer and what it measures."""
