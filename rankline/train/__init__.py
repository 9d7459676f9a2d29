"""What the training steps share: examples, the loop, checkpoints."""
