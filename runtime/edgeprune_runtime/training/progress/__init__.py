"""Where a run stands: its learning rate, when it ends, when it writes a checkpoint, and what it tells."""
