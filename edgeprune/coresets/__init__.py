"""Records of a scoring run -> scores -> the rows of the images that are kept."""
