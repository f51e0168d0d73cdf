"""Fetching of encoded images: local files, http and https, object stores."""
