"""ClientApps for the tests of worker processes, imported there."""

import os
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg, context):
    """Add the partition to the weights, and count the calls; some partitions misbehave when the message says so."""
    record = msg.content["arrays"]
    (weights,) = record.to_numpy_ndarrays(keep_input=False)  # empties what it received
    weights += 1000  # and changes it
    partition = context.node_config["partition-id"]
    calls = context.state["calls"]["n"] + 1 if "calls" in context.state else 1
    context.state["calls"] = MetricRecord({"n": calls})
    mischief = msg.content["config"].get(f"partition-{partition}", "")
    if mischief == "raise":
        raise RuntimeError("no disk")
    if mischief == "die":
        os._exit(7)
    if mischief == "exit":
        raise SystemExit(3)
    if mischief == "sleep":
        time.sleep(60)
    if mischief == "nothing":
        return None
    if mischief == "nan":
        weights[:] = np.nan
    if mischief == "unpicklable":
        msg.content["config"].__dict__["more"] = lambda: None
        return Message(RecordDict({"config": msg.content["config"]}), reply_to=msg)
    if mischief == "state":
        context.state["big"] = ConfigRecord({"bytes": bytes(100_000)})
    metrics = MetricRecord({"num-examples": partition + 1, "calls": calls, "pid": os.getpid()})
    return Message(RecordDict({"arrays": ArrayRecord([weights - 1000 + partition]), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    """Return the sum of the weights and a value of the run's configuration."""
    (weights,) = msg.content["arrays"].to_numpy_ndarrays()
    metrics = {"num-examples": 1, "sum": float(weights.sum()), "rate": context.run_config.get("rate", 0.0)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


def make_app():
    """Return the app; what a factory looks like."""
    return app


def broken():
    """Fail as a factory whose data is absent."""
    raise FileNotFoundError("no data")


def boosted_trees():
    """Return an app whose updates are trees in XGBoost's JSON: bytes in one array, one tree more in each reply."""
    import json

    made = ClientApp()

    @made.train()
    def grow(msg, context):
        seen = bytes(msg.content["arrays"]["0"].numpy())
        trees = json.loads(seen)["learner"]["gradient_booster"]["model"]["trees"] if seen else []
        leaf = {"id": 0, "leaf": context.node_config["partition-id"], "after": len(trees)}
        model = {
            "gbtree_model_param": {"num_trees": "1", "num_parallel_tree": "1"},
            "trees": [leaf],
            "tree_info": [0],
            "iteration_indptr": [0, 1],
        }
        grown = json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode()
        arrays = ArrayRecord([np.frombuffer(grown, np.uint8)])
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)

    return made


boosted_trees_app = boosted_trees()
