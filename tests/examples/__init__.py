"""Example models: for every operator, and for the ways in which networks put them together."""
