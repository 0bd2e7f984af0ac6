"""Commands that train networks from packs, and use them."""
