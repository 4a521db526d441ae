"""Device protocols, one folder each; see README.md for the shape of a folder."""
