"""Decoding, loading, epochs, start and memory, beside other decoders and loaders."""
