"""The rewrites: one module per family, each pass with a name, a reason and a function."""
