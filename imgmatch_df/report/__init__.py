"""The report: one HTML file that shows the clusters of a frame, and takes the decisions of a person."""
