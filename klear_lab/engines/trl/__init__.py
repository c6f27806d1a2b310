"""engine=trl: the RL stage in TRL's GRPOTrainer, which brings accelerate's FSDP, DeepSpeed and several processes."""
