"""A net or a model over many items: batches, scores, features, checkpoints, shards, result files."""
