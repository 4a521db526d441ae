"""tidegate's runtime: what devices say is on disk before they are told so, and reaches Kafka exactly once."""

__version__ = "0.1.0"
