"""What becomes of logs that many hosts wrote: collected into one store, and sealed as Parquet."""
