"""What a run keeps on disk: its description, checkpoints, best weights, metrics and the network."""
