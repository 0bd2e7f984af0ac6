"""Which images come in an epoch, and in which order: shuffled, balanced, replayed, shared out, left out."""
