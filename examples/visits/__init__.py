"""A model with attention under a mask: visits to a shop as lists of events, some longer than others."""
