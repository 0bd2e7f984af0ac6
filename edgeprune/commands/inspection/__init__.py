"""Commands that look into packs."""
