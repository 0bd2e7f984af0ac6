"""Spectra -> the components that are kept: by energy, or by a learnt FSE-Net."""
