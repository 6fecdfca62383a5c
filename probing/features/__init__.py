"""SAE features: training, reading, the keyword-affect plane, sparse probes."""
