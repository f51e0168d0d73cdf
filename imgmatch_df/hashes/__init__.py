"""The hash kinds: pixels to hashes, hashes to columns and back."""
