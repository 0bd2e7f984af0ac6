"""What a device needs: decode a pack to training batches, train, resume."""
