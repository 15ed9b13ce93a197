"""Methods that train whole layers, some at a time."""
