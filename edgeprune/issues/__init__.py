"""Images that look mislabeled, and near duplicates."""
