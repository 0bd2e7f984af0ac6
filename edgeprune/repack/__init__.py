"""Pack -> packs: another codec, parts, and several in one; where images came from."""
