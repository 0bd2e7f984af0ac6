"""One module for each command, in the rooms of `edgeprune --help`; it imports what it needs when it runs."""
