"""Commands that make packs and change them."""
