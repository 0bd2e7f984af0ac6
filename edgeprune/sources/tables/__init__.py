"""Tables that name images or hold them: CSV, Parquet, Arrow."""
