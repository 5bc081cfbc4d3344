"""The compiler here is a shell script that prints what the real one is known to print (versions 14 to 16)."""

from pathlib import Path

import pytest

from hedgerow.compile.edgetpu import (
    CHECK,
    OperatorLine,
    compile_for_edgetpu,
    compiled_for,
    parse_report,
)
from hedgerow.compile.errors import VerificationError
from hedgerow.hardware.lookup import load_target
from tests.processes import wait_until_gone

CORAL = load_target("coral-edgetpu")
HEAD = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1354 ms.

Input model: model.tflite
Input size: 96.19KiB
Output model: model_edgetpu.tflite
Output size: 132.30KiB
On-chip memory used for caching model parameters: 98.00KiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 13
Operation log: model_edgetpu.log
"""
ALL = """\

Operator                       Count      Status

CONV_2D                        9          Mapped to Edge TPU
ADD                            3          Mapped to Edge TPU
edgetpu-custom-op              1          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""
SOME = """\

Model successfully compiled but not all operations are supported by the Edge TPU.
Number of operations that will run on Edge TPU: 12
Number of operations that will run on CPU: 2

Operator                       Count      Status

DEQUANTIZE                     1          Operation is working on an unsupported data type
CONV_2D                        12         Mapped to Edge TPU
SOFTMAX                        1          More than one subgraph is not supported
"""
FAILED = """\
Edge TPU Compiler version 16.0.384591198
ERROR: Restored original execution plan after delegate application failure.
Compilation failed: Compilation failed due to large activation tensors in model.
"""


def install(folder: Path, body: str) -> str:
    """Put a compiler into *folder*; return it as a search path."""
    program = folder / "edgetpu_compiler"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(folder)


def printing(folder: Path, text: str, then: str) -> str:
    (folder / "report.txt").write_text(text)
    return install(folder, f"while read -r line; do echo \"$line\"; done < '{folder}/report.txt'\n{then}")


def test_the_table_is_read_and_the_prose_is_not():
    assert parse_report(HEAD + ALL) == (
        OperatorLine("CONV_2D", 9, "Mapped to Edge TPU"),
        OperatorLine("ADD", 3, "Mapped to Edge TPU"),
        OperatorLine("edgetpu-custom-op", 1, "Mapped to Edge TPU"),
    )
    assert parse_report(HEAD) == ()


def test_without_the_compiler_the_target_is_refused_and_gets_no_file_for_the_cpu(tmp_path):
    report = compile_for_edgetpu(b"model", search_path=str(tmp_path))
    assert (report.state, report.reason) == ("not run", "edgetpu_compiler is not installed")
    with pytest.raises(VerificationError) as caught:
        compiled_for(CORAL, b"model", search_path=str(tmp_path))
    assert (caught.value.subject, caught.value.check) == ("coral-edgetpu", CHECK)
    assert caught.value.found == "edgetpu_compiler is not installed"
    assert "install edgetpu_compiler" in str(caught.value)


def test_other_targets_get_their_file_as_it_is_and_have_no_such_check(tmp_path):
    assert compiled_for(load_target("android-arm64"), b"model", search_path=str(tmp_path)) == (b"model", {})


def test_a_model_whose_operators_are_all_mapped_passes_and_its_compiled_file_is_what_devices_get(tmp_path):
    # --show_operations --out_dir FOLDER MODEL
    path = printing(
        tmp_path, HEAD + ALL, 'while read -r line; do echo "$line chip"; done < "$4" > "$3/model_edgetpu.tflite"'
    )
    report = compile_for_edgetpu(b"model\n", search_path=path)
    assert (report.state, report.mapped, report.total) == ("passed", 13, 13)
    assert report.compiled == b"model chip\n"
    assert compiled_for(CORAL, b"model\n", search_path=path) == (b"model chip\n", {CHECK: "passed"})


def test_operators_left_to_the_cpu_fail_the_check_and_are_named(tmp_path):
    path = printing(tmp_path, HEAD + SOME, 'echo x > "$3/model_edgetpu.tflite"')
    report = compile_for_edgetpu(b"model", search_path=path)
    assert (report.state, report.mapped, report.total) == ("failed", 12, 14)
    with pytest.raises(
        VerificationError, match="DEQUANTIZE: Operation is working on an unsupported data type; SOFTMAX"
    ):
        compiled_for(CORAL, b"model", search_path=path)


def test_a_compiler_that_gives_up_fails_the_check_with_its_last_word(tmp_path):
    path = printing(tmp_path, FAILED, "exit 1")
    report = compile_for_edgetpu(b"model", search_path=path)
    assert report.state == "failed"
    assert report.reason.endswith("Compilation failed due to large activation tensors in model.")


def test_a_compiler_that_lists_nothing_proves_nothing(tmp_path):
    path = printing(tmp_path, HEAD, 'echo x > "$3/model_edgetpu.tflite"')
    assert compile_for_edgetpu(b"model", search_path=path).state == "failed"


def test_a_compiler_that_hangs_is_stopped(tmp_path):
    # The real one is a script that starts the program.
    path = install(tmp_path, f"/bin/sleep 30 &\necho $! > '{tmp_path}/started'\nwait")
    report = compile_for_edgetpu(b"model", search_path=path, timeout_s=0.5)
    assert (report.state, report.reason) == ("failed", "edgetpu_compiler took more than 0.5 s")
    wait_until_gone(int((tmp_path / "started").read_text()))


def test_a_compiler_that_cannot_be_started_was_not_run(tmp_path):
    path = install(tmp_path, "exit 0")
    (tmp_path / "edgetpu_compiler").write_bytes(b"\x7fELF no program")
    report = compile_for_edgetpu(b"model", search_path=path)
    assert report.state == "not run"
    assert report.reason.startswith("edgetpu_compiler cannot be started: cannot run ")
    assert report.reason.endswith("Exec format error")
