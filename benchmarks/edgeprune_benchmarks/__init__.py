"""Measurements of EdgePrune against its peers; every figure in README and docs comes from here.

Words: results are what a benchmark measured, a results file is their JSON, a table is their Markdown. A
report says how robust one network is. A model is the name of an architecture, a network has weights.
"""
