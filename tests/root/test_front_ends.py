"""Front ends give what numpy's and scipy's transforms give."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from hedgerow.front_ends import LogMel, Spectrum, frames  # noqa: E402

pytestmark = pytest.mark.heavy
SIGNAL = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)


def torched(values):
    return torch.from_numpy(np.ascontiguousarray(values))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(40, 90))
def test_frames_begin_every_hop_and_what_is_left_is_dropped(length, hop, samples):
    signal = SIGNAL[:, :samples]
    parts = frames(torched(signal), length, hop).numpy()

    wanted = np.lib.stride_tricks.sliding_window_view(signal, length, axis=1)[:, ::hop]
    np.testing.assert_array_equal(parts, wanted)


def test_frames_of_several_channels_keep_them_last():
    signal = np.stack([SIGNAL[:, :100], 2 * SIGNAL[:, :100]], axis=2)
    parts = frames(torched(signal), 12, 8).numpy()

    assert parts.shape == (3, 12, 12, 2)
    np.testing.assert_array_equal(parts[..., 1], 2 * parts[..., 0])
    np.testing.assert_array_equal(parts[1, 3, :, 0], signal[1, 24:36, 0])


@pytest.mark.parametrize(("length", "hop"), [(0, 1), (1, 0), (1001, 1)])
def test_frames_that_cannot_be_are_refused(length, hop):
    with pytest.raises(ValueError, match="expected 1 <= length <= 1000"):
        frames(torched(SIGNAL), length, hop)


@pytest.mark.parametrize("length", [2, 7, 64, 100, 512])
@pytest.mark.parametrize("window", ["hann", "hamming", "none"])
def test_a_spectrum_is_the_transform_of_windowed_parts_to_a_millionth_of_its_peak(length, window):
    parts = np.random.default_rng(1).normal(size=(2, 3, length)).astype(np.float32)
    shape = np.ones(length) if window == "none" else scipy.signal.get_window(window, length)
    wanted = np.abs(np.fft.rfft(parts.astype(np.float64) * shape))

    found = Spectrum(length, window=window)(torched(parts)).numpy()

    np.testing.assert_allclose(found, wanted, atol=2e-6 * wanted.max(), rtol=0)
    squared = Spectrum(length, window=window, squared=True)(torched(parts)).numpy()
    np.testing.assert_allclose(squared, wanted**2, atol=4e-6 * wanted.max() ** 2, rtol=0)


def mel(hz):
    return 2595 * np.log10(1 + hz / 700)


def log_mel_by_hand(signal, rate, length, hop, bands, low, high, floor):
    """Return bands of scipy's transform, each triangle written out."""
    _f, _t, transform = scipy.signal.stft(
        signal.astype(np.float64), rate, "hann", length, length - hop, boundary=None, padded=False
    )
    power = np.abs(transform * scipy.signal.get_window("hann", length).sum()) ** 2
    corners = [700 * (10 ** (step / 2595) - 1) for step in np.linspace(mel(low), mel(high), bands + 2)]
    rows = []
    for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
        bins = np.arange(length // 2 + 1) * rate / length
        weights = np.interp(bins, [left, middle, right], [0.0, 1.0, 0.0], left=0.0, right=0.0)
        rows.append(np.tensordot(power, weights, axes=(1, 0)))
    return np.log(np.maximum(np.stack(rows, axis=-1), floor))


@pytest.mark.parametrize(("length", "hop"), [(256, 128), (400, 160)])
def test_log_mel_is_what_scipys_transform_gives_to_three_thousandths(length, hop):
    rate, time = 8000.0, np.arange(4000) / 8000
    signal = np.stack([np.sin(2 * np.pi * (300 + 400 * time) * time), 0.01 * SIGNAL.ravel()[:1000].repeat(4)])

    found = LogMel(rate, length=length, hop=hop, bands=20)(torched(signal.astype(np.float32))).numpy()

    wanted = log_mel_by_hand(signal.astype(np.float32), rate, length, hop, 20, 20.0, 4000.0, 1e-6)
    assert found.shape == wanted.shape == (2, (4000 - length) // hop + 1, 20)
    np.testing.assert_allclose(found, wanted, atol=3e-3)


def test_silence_is_the_logarithm_of_the_floor():
    found = LogMel(8000, length=256, hop=128, bands=8, floor=1e-4)(torch.zeros(1, 1024)).numpy()

    np.testing.assert_allclose(found, np.log(1e-4), rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"bands": 0}, "expected at least one band within 0..4000 Hz"),
        ({"high_hz": 5000}, "found 8 in 20..5000 Hz"),
        ({"low_hz": 4000}, "at least one band within"),
        ({"floor": 0.0}, "expected a floor above zero that float32 holds, found 0"),
        ({"bands": 100}, "is narrower than 31.25 Hz, the step of a transform of 256 samples; take fewer bands"),
        ({"window": "kaiser"}, "expected a window of hann, hamming, none, found 'kaiser'"),
        ({"length": 1}, "expected a length of at least 2 samples, found 1"),
    ],
)
def test_bands_that_cannot_be_are_refused(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        LogMel(8000, **{"length": 256, "hop": 128, "bands": 8, **more})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: frames(torch.zeros(2, 8), 4.0, 2), "expected a whole number as length, found 4.0"),
        (lambda: frames(torch.zeros(8), 4, 2), r"expected a signal \(batch, samples\).*found \(8,\)"),
        (lambda: frames(torch.zeros(2, 3, 4, 5), 2, 1), r"found \(2, 3, 4, 5\)"),
        (lambda: Spectrum(8.0), "expected a whole number as length"),
        (lambda: LogMel(8000, length=256, hop=0, bands=4), "a hop of at least 1, found 8000 and 0"),
        (lambda: LogMel(float("inf"), length=256, hop=128, bands=4), "expected a rate in Hz"),
        (lambda: LogMel(float("nan"), length=256, hop=128, bands=4), "expected a rate in Hz"),
        (lambda: LogMel(8000, length=256, hop=128, bands=4.0), "expected a whole number as bands"),
        (lambda: LogMel(8000, length=256, hop=128, bands=4, floor=float("inf")), "floor above zero that float32 holds"),
        (lambda: LogMel(8000, length=256, hop=128, bands=4, floor=1e-60), "floor above zero that float32 holds"),
    ],
)
def test_a_front_end_that_cannot_be_is_refused_where_it_is_made(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("shape", [(1, 4, 16), (2, 4, 4), (4, 8)])
def test_parts_of_another_length_are_refused_and_never_folded(shape):
    with pytest.raises(ValueError, match=r"expected parts \(batch, parts, 8\), found"):
        Spectrum(8)(torch.zeros(shape))


def test_sizes_may_be_numbers_of_numpy():
    assert Spectrum(np.int64(8))(torch.zeros(1, 2, 8)).shape == (1, 2, 5)
