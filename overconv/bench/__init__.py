"""What watches the cost of layers: cases, exact figures, paired timing, and the gate."""
