"""One training run that records every image: the scores file."""
