"""The JSON of the documented image-matching API."""
