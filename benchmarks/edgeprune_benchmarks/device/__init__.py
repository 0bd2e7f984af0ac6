"""Minutes of training, power loss, memory, latency, export, fleets and installing."""
