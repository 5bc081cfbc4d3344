"""Read a compiled file back: which operators, number types and weights it really holds."""
