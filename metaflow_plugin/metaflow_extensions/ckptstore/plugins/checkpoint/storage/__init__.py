"""Where checkpoints are: the store in a datastore of Metaflow."""
