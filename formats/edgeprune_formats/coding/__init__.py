"""Integers -> bytes: rounding, contexts, rANS, and the kernels in C that decode."""
