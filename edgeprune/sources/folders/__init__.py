"""Folders of images, a folder for each class."""
