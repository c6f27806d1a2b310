"""engine=trl: the RL stage in TRL's GRPOTrainer, in one process or several, and with FSDP or DeepSpeed."""
