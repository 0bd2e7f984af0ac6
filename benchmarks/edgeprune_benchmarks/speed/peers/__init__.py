"""What ours is timed against: decoders of JPEG files, and loaders of other packages."""
