"""Source -> pack: what is settled, the encoding of images, and the file."""
