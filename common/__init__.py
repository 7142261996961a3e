"""What both halves stand on: files, the shard format, the run folder, remote objects, observers, errors."""
