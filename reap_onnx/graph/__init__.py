"""Which axes of which tensors carry the same channels, what follows from removing some, and doing it."""
