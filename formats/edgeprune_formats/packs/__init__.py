"""Header and chunks -> HDF5 file, and back: writer, reader, every check."""
