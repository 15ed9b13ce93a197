"""The server under load, on the loopback, bounded in count and in time."""
