"""The fleet: releases, rollouts, gates, drift, retraining, and the service that devices talk to."""
