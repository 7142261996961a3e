"""Build a corpus: raw archives to tokenized MDS shards, one datatrove stage after another."""
