"""The ``@checkpoint`` decorator of Metaflow, on a ckptstore."""

# Metaflow imports the modules of this package while it is being imported itself. Whoever comes
# here first (unpickling an artifact in a plain script) lets it do so before any of them is half made.
import metaflow  # noqa: F401
