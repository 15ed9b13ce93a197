"""Networks beside the network."""
