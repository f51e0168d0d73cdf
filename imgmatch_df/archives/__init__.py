"""Members of tar and zip archives as files: their paths, their places in the archive, and their bytes."""
