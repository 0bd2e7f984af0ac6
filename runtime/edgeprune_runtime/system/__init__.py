"""What the machine has: cores, threads, memory and devices."""
