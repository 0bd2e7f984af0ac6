"""What choosing images and components costs and buys."""
