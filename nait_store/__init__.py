"""The versioned feature store and profile registry for choosing training data by neuron activations."""
