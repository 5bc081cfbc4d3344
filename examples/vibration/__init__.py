"""A pump's vibration: whether it sounds as it always did, learned from healthy hours alone."""
