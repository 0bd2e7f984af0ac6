"""Files and bytes to pixels of one size."""
