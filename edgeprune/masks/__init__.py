"""Spectra -> the components that are kept: by energy, or by a learned FSE-Net."""
