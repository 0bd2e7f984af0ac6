"""A scores file -> the score of each image -> the rows of the images that are kept."""
