"""The ``@checkpoint`` decorator of Metaflow, on a ckptstore."""
