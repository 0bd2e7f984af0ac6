"""Trouble from the field: situations, faults of disks, load, and leaks."""
