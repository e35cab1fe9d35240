"""``current.checkpoint.loop``: iterations that are done once over all attempts."""
