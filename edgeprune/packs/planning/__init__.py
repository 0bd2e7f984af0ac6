"""What is settled before an image is encoded: files given, images left out, and the header."""
