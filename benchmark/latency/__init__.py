"""Time of layers and networks in all their situations, beside the plain ones."""
