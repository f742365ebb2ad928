"""The mathematics: patches, normal equations, the removal path, the refit and the allocation, on plain arrays."""
