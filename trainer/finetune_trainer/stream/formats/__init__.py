"""Files of rows as plain bytes and values: decompression that notices a missing end, parquet by ranges."""
