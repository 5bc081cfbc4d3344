"""MQTT brokers for development and the demo."""
