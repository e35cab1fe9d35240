"""A type that cannot be pickled, as an extension of Metaflow's may bring one with a serializer for it."""


class Box:
    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        raise TypeError("a Box cannot be pickled")


class Leaky(Box):
    """Claimed by the serializer, which fails with it."""
