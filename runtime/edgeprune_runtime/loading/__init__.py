"""Pack -> batches: `PackLoader`, `PackDataset`, several packs, order, cache and prefetch."""
