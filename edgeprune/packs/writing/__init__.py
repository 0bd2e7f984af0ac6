"""A plan -> the file of a pack: at once, or in parts that are put together; and what came of it."""
