"""The commands of ``edgeprune bench``, a module a subject."""
