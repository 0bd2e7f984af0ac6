"""Fuzzing: what files from strangers do to their readers, by many small changes to sound ones."""
