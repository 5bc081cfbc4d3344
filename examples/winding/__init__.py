"""The temperature inside a motor, estimated from what is measured outside."""
