"""Train a base model on prepared MDS shards (docs/format.md)."""
