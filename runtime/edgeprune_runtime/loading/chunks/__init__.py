"""How images come: chunks in memory within a bound, read and decoded ahead, into batches."""
