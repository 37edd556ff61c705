"""What a recipe will do over its steps, before anything runs: sparsity and learning rate, in characters and as PNG."""
