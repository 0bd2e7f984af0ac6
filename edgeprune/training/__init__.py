"""The command line's side of training: setting up, evaluation, progress and curves."""
