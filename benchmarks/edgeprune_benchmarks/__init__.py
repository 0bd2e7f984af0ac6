"""Measurements of EdgePrune against its peers; every figure in README and docs comes from here."""
