"""REAP on a network: error paths of its groups, widths under a budget, sequential refit."""
