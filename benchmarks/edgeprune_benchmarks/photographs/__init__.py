"""Minutes to accuracy on photographs: a folder of JPEG files and a common recipe, or a pack and ours."""
