"""Many tasks on one frozen model, over HTTP."""
