"""Commands that sign packs."""
