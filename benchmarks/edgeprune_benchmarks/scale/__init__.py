"""Building a large data set, and working with a large pack."""
