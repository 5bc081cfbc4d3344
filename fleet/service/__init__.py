"""The process that speaks to devices: one thread that writes, and what others may ask of it."""
