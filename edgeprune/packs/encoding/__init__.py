"""Pixels -> the chunks of a pack: transform, tiles, quantization, and what a teacher says of the images."""
