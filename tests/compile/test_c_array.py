import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.compile.arena import Arena, installed_version
from hedgerow.compile.build import Build, add_blob
from hedgerow.compile.c_array import LIMIT_BYTES, CModel, c_header, c_source, write_c_array, write_c_arrays
from hedgerow.compile.c_text import c_name
from hedgerow.compile.errors import CArrayError
from hedgerow.hardware import load_target
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs, Reconstruction, Values
from hedgerow.schema import TensorSpec
from hedgerow.tensor_border import to_stored

CONTENT = bytes(range(256)) * 3 + b"\x1c"


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("digits", "digits_model"),
        ("Keyword-Spotting v2", "keyword_spotting_v2_model"),
        ("7segment", "m7segment_model"),
        ("int", "int_model"),
        ('x"; #include <y>', "x_include_y_model"),
    ],
)
def test_a_name_becomes_an_identifier(name, symbol):
    assert c_name(name) == symbol


def test_a_name_without_letters_and_digits_is_refused():
    with pytest.raises(CArrayError, match="expected a name with a letter or digit, found '---'"):
        c_name("---")


ARENA = Arena(bytes=53_008, kernels="reference kernels", version="0.1", scratch_bytes=2304, scratch_omitted="")
IMAGE = TensorSpec("image", (1, 8, 8), unit="intensity", minimum=0, maximum=16)
SCHEMA = ModelSchema(
    (IMAGE,), (TensorSpec("probabilities", (3,)),), Outputs.of(Classes(("0", 'the "one"', "zwölf*/ \\")))
)


def model(content: bytes = CONTENT, name: str = "digits", **changes) -> CModel:
    facts = CModel(
        name=name,
        target="cortex-m4",
        architecture="armv7e-m",
        content=content,
        inputs=(Tensor("image", "args_0", (1, 1, 8, 8), "int8", 1 / 16, -128),),
        outputs=(Tensor("probabilities", "output_0", (1, 3), "int8", 0.00390625, -128),),
        schema=SCHEMA,
        arena=ARENA,
    )
    return replace(facts, **changes)


def test_the_source_holds_every_byte_in_order_and_is_aligned():
    text = c_source(model())
    assert bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", text)) == CONTENT
    assert "alignas(16) const unsigned char digits_model[" in text


def test_the_same_model_gives_the_same_text():
    assert c_source(model()) == c_source(model())
    assert c_header(model()) == c_header(model())


def words(text: str) -> str:
    """Return the prose of a header in one line."""
    return " ".join(re.sub(r"^ ?/?\*+/?|\*/$", " ", text, flags=re.MULTILINE).split())


def test_the_header_gives_the_arena_exactly_with_kernels_and_version_and_promises_no_core_anything():
    text = c_header(model())
    assert "#define DIGITS_MODEL_BYTES 769\n" in text
    assert "#define DIGITS_MODEL_ARENA_BYTES 53008\n" in text
    assert text.startswith("#ifndef HEDGEROW_DIGITS_MODEL_H_\n#define HEDGEROW_DIGITS_MODEL_H_\n")
    said = words(text)
    assert "The smallest tensor arena in which reference kernels (tflite-micro 0.1, 64-bit pointers) allocate" in said
    assert "It was not run on a cortex-m4, and nothing is promised for that core" in said
    assert "Such a target runs no agent of Hedgerow" in said


def test_cmsis_nns_scratch_is_a_second_number_with_its_source_and_only_for_cores_that_have_it():
    text = c_header(model())
    assert "#define DIGITS_MODEL_CMSIS_NN_SCRATCH_BYTES 2304\n" in text
    assert "CMSIS-NN 99f736a" in words(text)
    other = c_header(model(architecture="xtensa-lx7"))
    assert "CMSIS_NN_SCRATCH" not in other
    assert "how much is not known for this core's own kernels (xtensa-lx7)" in words(other)
    unknown = replace(ARENA, scratch_bytes=None, scratch_omitted="the formula for SVDF is not covered")
    text = c_header(model(arena=unknown))
    assert "CMSIS_NN_SCRATCH" not in text
    assert "how much is not known with CMSIS-NN: the formula for SVDF is not covered" in words(text)


def test_an_arena_that_nobody_measured_is_no_number_at_all():
    text = c_header(model(arena=None))
    assert "ARENA_BYTES" not in text
    assert "How large a tensor arena it needs is not known" in words(text)
    assert "install the extra mcu" in text


def test_the_header_says_how_to_feed_the_model_and_read_it():
    text = c_header(model())
    assert "#define DIGITS_MODEL_INPUT_0_SCALE 0.0625f\n" in text
    assert "#define DIGITS_MODEL_INPUT_0_ZERO_POINT (-128)\n" in text
    assert '#define DIGITS_MODEL_INPUT_0_NAME "image"\n' in text
    assert "#define DIGITS_MODEL_INPUT_0_BYTES 64\n" in text
    assert "#define DIGITS_MODEL_OUTPUT_0_SCALE 0.00390625f\n" in text
    assert "#define DIGITS_MODEL_OUTPUT_0_BYTES 3\n" in text
    assert "#define DIGITS_MODEL_LABELS 3\n" in text
    said = words(text)
    assert "Input 0, image: int8[1, 1, 8, 8], intensity, 0 to 16." in said
    assert "pre-processing is inside the model, and so is its softmax" in said
    assert "Converting to stored integers is not inside: stored = rintf(real / SCALE) + ZERO_POINT" in said
    assert "Nothing is known of pre-processing" in words(c_header(model(is_foreign=True)))


def test_a_float_tensor_has_no_scale():
    floating = (Tensor("image", "x", (1, 1, 8, 8), "float32"),)
    text = c_header(model(inputs=floating))
    assert "INPUT_0_SCALE" not in text
    assert "#define DIGITS_MODEL_INPUT_0_BYTES 256\n" in text


@pytest.mark.parametrize("size_bytes", [0, LIMIT_BYTES + 1])
def test_an_empty_or_huge_model_is_refused_and_nothing_is_written(size_bytes, tmp_path):
    with pytest.raises(CArrayError, match=f"found {size_bytes} bytes"):
        write_c_array(tmp_path / "c", model(bytes(size_bytes)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc on this machine")
def test_a_compiler_takes_the_source_and_puts_the_model_into_read_only_memory(tmp_path):
    source, header = write_c_array(tmp_path / "c", model())
    main = tmp_path / "main.cc"
    main.write_text(
        '#include <cstring>\n#include "c/model.h"\n#include "c/model.h"\n'
        "static_assert(DIGITS_MODEL_ARENA_BYTES == 53008 && DIGITS_MODEL_LABELS == 3);\n"
        "static_assert(DIGITS_MODEL_INPUT_0_SCALE == 0.0625f && DIGITS_MODEL_INPUT_0_ZERO_POINT == -128);\n"
        "int main() {\n"
        "  unsigned sum = 0;\n"
        "  for (unsigned i = 0; i < digits_model_len; ++i) sum += digits_model[i];\n"
        '  if (std::strcmp(digits_model_labels[1], "the \\"one\\"") != 0) return 252;\n'
        '  if (std::strcmp(digits_model_labels[2], "zw\\xc3\\xb6lf*/ \\\\") != 0) return 253;\n'
        "  return sum % 251 + 2 * ((unsigned long)digits_model % 16 != 0);\n"
        "}\n"
    )
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-x", "c++"]
    subprocess.run(["gcc", *flags, "-c", str(source), "-o", str(tmp_path / "model.o")], check=True)
    subprocess.run(
        ["gcc", *flags, str(main), "-x", "none", str(tmp_path / "model.o"), "-o", "main"], check=True, cwd=tmp_path
    )

    assert header.name == "model.h"
    assert subprocess.run([str(tmp_path / "main")], check=False).returncode == sum(CONTENT) % 251
    if shutil.which("nm"):
        listed = subprocess.run(["nm", str(tmp_path / "model.o")], check=True, capture_output=True, text=True).stdout
        assert re.search(r" R digits_model$", listed, re.MULTILINE)


def artifact(folder, target: str, content: bytes) -> Artifact:
    return Artifact(
        target=target,
        format="tflite",
        runtime="litert",
        blob=add_blob(folder, content),
        inputs=model().inputs,
        outputs=model().outputs,
        recipe=(),
        golden=None,
        golden_tolerance=0.0,
        metrics={"peak_memory_bytes": 53008.0},
        checks={},
    )


def test_a_build_gets_sources_for_the_targets_that_link_their_model(tmp_path):
    build = Build(
        task="digits",
        model_schema=SCHEMA,
        artifacts=(artifact(tmp_path, "android-arm64", b"one"), artifact(tmp_path, "cortex-m7", CONTENT)),
        train_graphs=(),
        reference=add_blob(tmp_path, b"reference"),
        checkpoint_sha256="0" * 64,
        run="",
        data_fingerprint="",
        metrics={},
        parent=None,
    )

    sources = write_c_arrays(
        tmp_path, build, {name: load_target(name) for name in ("android-arm64", "cortex-m7")}, {"cortex-m7": ARENA}
    )

    assert sources == (tmp_path / "c" / "cortex-m7" / "model.cc",)

    assert [path.name for path in (tmp_path / "c").iterdir()] == ["cortex-m7"]
    assert (tmp_path / "c" / "cortex-m7" / "model.cc").read_text() == c_source(model())
    assert "MODEL_ARENA_BYTES 53008\n" in (tmp_path / "c" / "cortex-m7" / "model.h").read_text()


@pytest.mark.heavy
def test_a_model_from_elsewhere_becomes_firmware_too(mlperf_tiny, tmp_path):
    pytest.importorskip("ai_edge_litert")
    from hedgerow.compile.third_party import pack_third_party

    file = mlperf_tiny / "kws_ref_model_int8.tflite"
    pack_third_party(file, ["cortex-m4"], tmp_path / "out", task="keywords")

    text = (tmp_path / "out" / "c" / "cortex-m4" / "model.cc").read_text()
    assert bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", text)) == file.read_bytes()
    header = (tmp_path / "out" / "c" / "cortex-m4" / "model.h").read_text()
    assert "Nothing is known of pre-processing" in words(header)
    if installed_version() is not None:
        assert "#define KEYWORDS_MODEL_ARENA_BYTES" in header


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc on this machine")
def test_the_formula_of_the_header_stores_what_the_golden_samples_were_made_with(tmp_path):
    """Every half step of an int8 border, by the header's own numbers in single precision."""
    tensor = Tensor("image", "x", (1, 1, 8, 8), "int8", 0.037, -5)
    write_c_array(tmp_path / "c", model(inputs=(tensor,)))
    values = ((np.arange(-131, 131) + 5 + 0.5) * 0.037).astype(np.float32)
    main = tmp_path / "main.c"
    main.write_text(
        '#include <math.h>\n#include <stdio.h>\n#include "c/model.h"\n'
        f"static const float reals[] = {{{', '.join(float(value).hex() + 'f' for value in values)}}};\n"
        "int main(void) {\n"
        "  for (unsigned i = 0; i < sizeof reals / sizeof *reals; ++i) {\n"
        "    float stored = rintf(reals[i] / DIGITS_MODEL_INPUT_0_SCALE) + DIGITS_MODEL_INPUT_0_ZERO_POINT;\n"
        '    printf("%d\\n", (int)fmaxf(-128, fminf(127, stored)));\n'
        "  }\n"
        "}\n"
    )
    subprocess.run(["gcc", "-std=c11", "-O1", str(main), "-o", str(tmp_path / "run"), "-lm"], check=True)
    said = subprocess.run([tmp_path / "run"], check=True, capture_output=True, text=True).stdout
    assert [int(line) for line in said.split()] == to_stored(values, tensor).tolist()


STREAMING = ModelSchema(
    (TensorSpec("frame", (16,)), TensorSpec("h", (2, 1, 32)), TensorSpec("c", (1, 4))),
    (TensorSpec("probabilities", (2,)), TensorSpec("c_next", (1, 4)), TensorSpec("h_next", (2, 1, 32))),
    Outputs.of(Classes(("silence", "speech"))),
    {"h": "h_next", "c": "c_next"},
)


def streaming_model(**changes) -> CModel:
    return model(
        inputs=(
            Tensor("frame", "args_0", (1, 16), "int8", 0.02, -101),
            Tensor("h", "args_1", (2, 1, 32), "int8", 0.06, 36),
            Tensor("c", "args_2", (1, 4), "float32"),
        ),
        outputs=(
            Tensor("probabilities", "output_0", (1, 2), "int8", 0.00390625, -128),
            Tensor("c_next", "output_1", (1, 4), "float32"),
            Tensor("h_next", "output_2", (2, 1, 32), "int8", 0.06, 36),
        ),
        schema=STREAMING,
        **changes,
    )


def test_the_header_says_which_output_is_which_inputs_state_and_what_zero_is():
    text = c_header(streaming_model())

    lines = [line for line in text.splitlines() if "_STATE" in line]
    assert lines == [
        "#define DIGITS_MODEL_STATES 2",
        "#define DIGITS_MODEL_STATE_0_INPUT 1",
        "#define DIGITS_MODEL_STATE_0_OUTPUT 2",
        "#define DIGITS_MODEL_STATE_0_ZERO (36)",
        "#define DIGITS_MODEL_STATE_1_INPUT 2",
        "#define DIGITS_MODEL_STATE_1_OUTPUT 1",
        "#define DIGITS_MODEL_STATE_1_ZERO (0)",
    ]
    assert "fill each of these inputs with elements of ZERO" in words(text)
    assert "_STATE" not in c_header(model())


def of_outputs(outputs: Outputs, *stored: Tensor) -> CModel:
    return model(schema=ModelSchema((IMAGE,), outputs.tensors(), outputs), outputs=stored)


def test_numbers_have_their_names_units_and_scale_in_the_header():
    outputs = Outputs.of(Values(("level", "flow"), tolerance=1.0, unit=("m", "l/s")))
    made = of_outputs(outputs, Tensor("values", "output_0", (1, 2), "int8", 0.5, 3))
    header = c_header(made)
    assert "/* Output 0, values: int8[1, 2], m, l/s. */" in header
    assert "/* Names of the values, in the order of the first output. */\n#define DIGITS_MODEL_LABELS 2" in header
    assert "softmax" not in header
    assert '{\n    "level",\n    "flow",\n};' in c_source(made)


def test_each_of_several_outputs_has_names_of_its_own():
    outputs = Outputs(
        {"anomaly": Reconstruction(threshold=1.0), "kind": Classes(("a", "b")), "level": Values(("m",), tolerance=1.0)}
    )
    stored = [Tensor(name, name, (1, *output.tensor(name).shape), "int8", 0.5, 0) for name, output in outputs.items()]
    made = of_outputs(outputs, *stored)
    header, source = c_header(made), c_source(made)
    assert "and so is its mean squared difference and softmax" in " ".join(header.split()).replace("* ", "")
    assert "DIGITS_MODEL_LABELS" not in header
    assert "#define DIGITS_MODEL_OUTPUT_1_LABELS 2" in header
    assert "#define DIGITS_MODEL_OUTPUT_2_LABELS 1" in header
    assert "DIGITS_MODEL_OUTPUT_0_LABELS" not in header
    assert 'digits_model_output_1_labels[DIGITS_MODEL_OUTPUT_1_LABELS] = {\n    "a",\n    "b",\n};' in source
    assert "Names of the classes, in the order of the last dimension of output 1, kind." in " ".join(header.split())
