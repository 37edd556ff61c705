"""Text as the tensors of a step: packed and masked, or labelled and padded."""
