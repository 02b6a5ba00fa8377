"""What layers, networks and the training loop cost, measured."""
