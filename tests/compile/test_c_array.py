import re
import shutil
import subprocess

import pytest

from hedgerow.compile.build import Build, add_blob
from hedgerow.compile.c_array import LIMIT_BYTES, c_header, c_name, c_source, write_c_array, write_c_arrays
from hedgerow.compile.errors import CArrayError
from hedgerow.manifest import Artifact
from hedgerow.schema import ModelSchema

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


def test_the_source_holds_every_byte_in_order_and_is_aligned():
    text = c_source("digits", CONTENT)
    assert bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", text)) == CONTENT
    assert "alignas(16) const unsigned char digits_model[" in text


def test_the_same_content_gives_the_same_text():
    assert c_source("digits", CONTENT) == c_source("digits", CONTENT)
    assert c_header("digits", 10, 100) == c_header("digits", 10, 100)


def test_the_header_says_length_and_arena_rounded_up():
    text = c_header("digits", 769, 53_001)
    assert "#define DIGITS_MODEL_BYTES 769\n" in text
    assert "#define DIGITS_MODEL_ARENA_BYTES 53248\n" in text
    assert text.startswith("#ifndef HEDGEROW_DIGITS_MODEL_H_\n#define HEDGEROW_DIGITS_MODEL_H_\n")


@pytest.mark.parametrize("size_bytes", [0, LIMIT_BYTES + 1])
def test_an_empty_or_huge_model_is_refused_and_nothing_is_written(size_bytes, tmp_path):
    with pytest.raises(CArrayError, match=f"found {size_bytes} bytes"):
        write_c_array(tmp_path / "c", "digits", bytes(size_bytes), 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc on this machine")
def test_a_compiler_takes_the_source_and_puts_the_model_into_read_only_memory(tmp_path):
    source, header = write_c_array(tmp_path / "c", "digits", CONTENT, 53_001)
    main = tmp_path / "main.cc"
    main.write_text(
        '#include "c/model.h"\n#include "c/model.h"\n'
        "static_assert(DIGITS_MODEL_ARENA_BYTES == 53248);\n"
        "int main() {\n"
        "  unsigned sum = 0;\n"
        "  for (unsigned i = 0; i < digits_model_len; ++i) sum += digits_model[i];\n"
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
        inputs=(),
        outputs=(),
        recipe=(),
        golden=None,
        golden_tolerance=0.0,
        metrics={"peak_memory_bytes": 2000.0},
        checks={},
    )


def test_a_build_gets_sources_for_the_targets_that_link_their_model(tmp_path):
    build = Build(
        task="digits",
        model_schema=ModelSchema((), ()),
        artifacts=(artifact(tmp_path, "android-arm64", b"one"), artifact(tmp_path, "cortex-m7", CONTENT)),
        train_graphs=(),
        reference=add_blob(tmp_path, b"reference"),
        checkpoint_sha256="0" * 64,
        run="",
        data_fingerprint="",
        metrics={},
        parent=None,
    )

    assert write_c_arrays(tmp_path, build) == (tmp_path / "c" / "cortex-m7" / "model.cc",)

    assert [path.name for path in (tmp_path / "c").iterdir()] == ["cortex-m7"]
    assert (tmp_path / "c" / "cortex-m7" / "model.cc").read_text() == c_source("digits", CONTENT)
    assert "ARENA_BYTES 2048" in (tmp_path / "c" / "cortex-m7" / "model.h").read_text()


@pytest.mark.heavy
def test_a_model_from_elsewhere_becomes_firmware_too(mlperf_tiny, tmp_path):
    pytest.importorskip("ai_edge_litert")
    from hedgerow.compile.third_party import pack_third_party

    file = mlperf_tiny / "kws_ref_model_int8.tflite"
    pack_third_party(file, ["cortex-m4"], tmp_path / "out", task="keywords")

    text = (tmp_path / "out" / "c" / "cortex-m4" / "model.cc").read_text()
    assert bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", text)) == file.read_bytes()
    header = (tmp_path / "out" / "c" / "cortex-m4" / "model.h").read_text()
    assert 8_000 < int(re.search(r"KEYWORDS_MODEL_ARENA_BYTES (\d+)", header)[1]) < 98_304
