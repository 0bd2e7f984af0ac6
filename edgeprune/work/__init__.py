"""Work that takes long: resumable runs, several processes, progress."""
