"""What a model asks of hardware: parameters, operations, memory, time and energy."""
