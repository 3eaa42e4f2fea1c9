"""CSV and Parquet files as people have them, as a Dataset."""
