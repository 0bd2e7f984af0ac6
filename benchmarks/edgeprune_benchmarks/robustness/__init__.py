"""How robust a trained network is: attacks, the controls that a report must pass, recipes and tables.

Attacks take images on [0, 1], and a perturbation budget in pixels of that scale; the normalization that a
network was trained with is inside the victim. See docs/results/robustness.md.
"""
