"""One batch of sources in, one batch of hashes out."""
