"""Files on any fsspec URL: locations, atomic creation, the store's layout, versioned documents, digests."""
