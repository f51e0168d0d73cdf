"""Moves of removed files into another folder: checked, without overwriting, and undone from a journal."""
