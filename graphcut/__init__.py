"""Split a CNN that is too large for an edge accelerator into segments that fit."""
