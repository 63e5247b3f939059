"""The demonstration: a tiny trained model, the data it knows, and the scripts that made both."""
