"""The documented API over HTTP: `imgmatch serve`.

A thin face: every answer comes from the batches and verbs that the frames use, and is written by `records`.
"""
