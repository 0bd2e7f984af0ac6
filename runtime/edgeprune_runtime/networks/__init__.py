"""The networks that a device trains, and the weights that they begin with."""
