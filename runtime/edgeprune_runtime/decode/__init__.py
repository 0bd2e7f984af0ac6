"""Coefficients -> pixels: the inverse DCT by torch, scipy or the compiled kernel, and augmentation."""
