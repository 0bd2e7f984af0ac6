"""One HTML file that shows a pack: its images, what they cost, what was kept, what a network confuses."""
