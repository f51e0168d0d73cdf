"""Sources to bytes: local files, http and https, object stores."""
