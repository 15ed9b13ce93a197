"""Some of the network's own scalars."""
