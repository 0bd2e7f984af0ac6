"""Source -> pack, and what is done to whole packs: convert, split, merge, preview."""
