"""What this extension changes in Metaflow's configuration."""

from metaflow import metaflow_config as _config

# `spin` runs no decorator that is not in this list. It is changed in place: a list of our own
# would replace that of another extension, which Metaflow reads at the same time.
if "checkpoint" not in _config.SPIN_ALLOWED_DECORATORS:
    _config.SPIN_ALLOWED_DECORATORS.append("checkpoint")
