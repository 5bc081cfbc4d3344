"""Files run by their runtimes alone, without anything of the product: rows in, rows of the output at a place out."""

import numpy as np

from tests.compile.only import only


def in_onnxruntime(content, rows, place=0):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    batches = rows[:, None] if given.shape[0] == 1 else [rows]
    return np.concatenate([session.run(None, {given.name: batch})[place] for batch in batches])


def in_litert(content, rows, place=0):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[place]
    found = []
    for row in rows:
        interpreter.set_tensor(given["index"], _stored(row[None], given))
        interpreter.invoke()
        found.append(_plain(interpreter.get_tensor(made["index"])[0], made))
    return np.array(found)


def in_tflite_micro(content, rows, place=0):
    """Run in TensorFlow Lite Micro; LiteRT is asked for the border's types and scales only."""
    from ai_edge_litert.interpreter import Interpreter
    from tflite_micro.python.tflite_micro import runtime

    described = Interpreter(model_content=content)
    given, made = described.get_input_details()[0], described.get_output_details()[place]
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 24)
    found = []
    for row in rows:
        interpreter.set_input(_stored(row[None], given), 0)
        interpreter.invoke()
        found.append(_plain(interpreter.get_output(place)[0], made))
    return np.array(found)


def _stored(values, described):
    scale, zero = described["quantization"]
    if not scale:
        return values.astype(described["dtype"])
    limits = np.iinfo(described["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(described["dtype"])


def _plain(values, described):
    scale, zero = described["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values


def in_coreml(content, rows):
    """Evaluate by reference: Core ML itself runs on Apple's systems only."""
    from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml

    return only(predict_coreml(content, {"x": rows.astype(np.int32) if rows.dtype == np.int64 else rows}))


RUN = {"onnx": in_onnxruntime, "tflite": in_litert, "mlpackage": in_coreml}
