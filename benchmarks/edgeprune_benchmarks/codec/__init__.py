"""Bytes against quality and accuracy, beside other codecs."""
