"""Measurements of EdgePrune against its peers; every figure in the README comes from here."""
