"""Circuit graphs from causal results. Nothing is here yet."""
