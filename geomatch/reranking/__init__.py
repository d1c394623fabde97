"""The order of what the vector search retrieves, by more than each tile's own score."""
