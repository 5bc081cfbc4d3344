"""Tests of hedgerow.server.weights.file_kind."""

import pytest

from hedgerow.server.weights.file_kind import FileKind, NotWeights, kind_of

ZIP = b"PK\x03\x04" + b"\0" * 60


@pytest.mark.parametrize(
    ("head", "names", "suffix", "kind"),
    [
        (ZIP, ["model/data.pkl", "model/data/0", "model/version"], ".pt", FileKind.TORCH),
        (b"\x80\x02\x8a\nl\xfc", [], ".pth", FileKind.TORCH),
        ((64).to_bytes(8, "little") + b'{"w":', [], ".bin", FileKind.SAFETENSORS),
    ],
)
def test_weights_are_known_by_their_bytes_whatever_the_file_is_called(head, names, suffix, kind):
    assert kind_of(head, names, suffix) is kind


@pytest.mark.parametrize(
    ("head", "names", "suffix", "found"),
    [
        (b"", [], ".pt", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", [], ".pt", "a pointer of Git LFS in the place of the file"),
        (ZIP, [], ".pt", "an archive that is damaged or cut short"),
        (ZIP, ["m/data.pkl", "m/code/__torch__.py"], ".pt", "a TorchScript file, whose code is never run here"),
        (ZIP, ["m/data.pkl", "m/constants.pkl"], ".pt", "a TorchScript file, whose code is never run here"),
        (
            ZIP,
            ["m/archive_format", "m/models/model.json"],
            ".pt2",
            "an exported program of torch.export, whose code is never run here",
        ),
        (ZIP, ["arr_0.npy", "b.npy"], ".npz", "an archive of numpy arrays"),
        (ZIP, ["config.json", "model.weights.h5"], ".keras", "a Keras file"),
        (ZIP, ["readme.txt"], ".zip", "a zip archive that torch has not written"),
        (b"\x1c\0\0\0TFL3", [], ".tflite", "a TFLite file"),
        (b"\x08\x08\x12\x07pytorch", [], ".bin", "an ONNX file"),
        (b"?", [], ".onnx", "an ONNX file"),
        (b"\x89HDF\r\n\x1a\n", [], ".h5", "an HDF5 file, as Keras writes them"),
        (b"\x93NUMPY\x01", [], ".npy", "one numpy array without a name"),
        (b"hello", [], ".pt", "bytes that neither torch nor safetensors has written"),
    ],
)
def test_what_is_something_else_is_named_with_what_to_do(head, names, suffix, found):
    kind = kind_of(head, names, suffix)

    assert isinstance(kind, NotWeights)
    assert kind.found == found
    assert kind.advice
