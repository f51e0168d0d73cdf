"""HTTP service of the documented API (`imgmatch serve`), so that programs in any language can use the package.

It parses requests, calls the batches and the verbs that the frames use, and sends the JSON of `documented`.
"""
