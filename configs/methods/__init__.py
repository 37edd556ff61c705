"""What may happen to the weights: a frozen class per pruning method."""
