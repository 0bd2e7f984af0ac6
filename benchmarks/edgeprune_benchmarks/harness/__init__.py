"""What every benchmark needs: images, timing, results as JSON, tables."""
