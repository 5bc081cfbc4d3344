"""Where a Flower strategy's messages go: clients in this process, or enrolled devices."""
