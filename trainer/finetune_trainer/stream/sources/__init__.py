"""Where the rows lie: data URIs and the objects that they name, on storage and on the hub."""
