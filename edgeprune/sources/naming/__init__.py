"""What users name: options, labels, classes, splits, patterns of files."""
