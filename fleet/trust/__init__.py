"""What is signed, by which keys, and what a release is made of."""
