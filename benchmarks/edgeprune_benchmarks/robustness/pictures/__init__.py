"""Loss around weights and images, what gradients see, and what was kept, drawn."""
