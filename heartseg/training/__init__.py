"""Training: the loop, its checkpoints and its run folder, in plain PyTorch."""
