"""Network and images -> perturbed images, within a budget in pixels."""
