import io
import json
import zipfile

import pytest

from hedgerow.compile.mlpackage import pack, unpack
from hedgerow.errors import DecodeError


def package(folder, root: str, other: str) -> None:
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            root: {"path": "com.apple.CoreML/model.mlmodel"},
            other: {"path": "com.apple.CoreML/weights"},
        },
        "rootModelIdentifier": root,
    }
    (folder / "Data").mkdir(parents=True)
    (folder / "Manifest.json").write_text(json.dumps(manifest))
    (folder / "Data" / "model.mlmodel").write_bytes(b"model")


def test_packages_that_differ_in_identities_and_times_alone_have_equal_bytes(tmp_path):
    package(tmp_path / "a", "2ab62ad5", "5265a428")
    package(tmp_path / "b", "77777777", "11111111")
    assert pack(tmp_path / "a") == pack(tmp_path / "b")


def test_a_package_comes_back(tmp_path):
    package(tmp_path / "a", "2ab62ad5", "5265a428")
    unpack(pack(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "b" / "Data" / "model.mlmodel").read_bytes() == b"model"
    manifest = json.loads((tmp_path / "b" / "Manifest.json").read_text())
    entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    assert entry["path"] == "com.apple.CoreML/model.mlmodel"
    assert pack(tmp_path / "b") == pack(tmp_path / "a")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_file_outside_the_package_is_refused(tmp_path, name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DecodeError, match="files inside the package"):
        unpack(buffer.getvalue(), tmp_path / "b")


def test_a_package_larger_than_the_limit_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"0" * 100_000)
    with pytest.raises(DecodeError, match="at most 1000 bytes"):
        unpack(buffer.getvalue(), tmp_path / "b", limit_bytes=1000)


def test_bytes_that_are_no_zip_are_refused(tmp_path):
    with pytest.raises(DecodeError, match="a zip of a Core ML package"):
        unpack(b"no zip", tmp_path / "b")
