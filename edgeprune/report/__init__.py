"""What a pack holds, shown: as one HTML file, as a picture of what was lost, and beside other formats."""
