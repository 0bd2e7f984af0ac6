"""What a step minimizes, and what is measured of a network: losses, metrics, perturbed images, a teacher."""
