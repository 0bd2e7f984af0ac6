"""One module for each command of the command line; what a command needs it imports when it runs."""
