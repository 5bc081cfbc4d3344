"""The training-time distribution of every feature, cut into bins that ship inside the release.

A device counts into these bins, so its counts and the reference are directly comparable: merging is addition and
nothing is approximated (quantile sketches merged over a fleet raise false alarms; see docs/adr/0004).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError

__all__ = ["FeatureReference", "Reference", "build_reference"]

_VERSION = 1
_LIMIT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """One feature's bins.

    Attributes:
        name: The feature, such as ``image.mean``.
        edges: Inner bin edges, strictly rising; bin ``i`` holds ``edges[i-1] <= x < edges[i]``, the first and the
            last bin are open. For a category, ``0.5, 1.5, ...``: one bin a class.
        counts: Reference count of each bin; one more than there are edges.
        categories: Names of the bins of a categorical feature, else empty.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    categories: tuple[str, ...] = ()

    def bin(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return how many of *values* fall into each bin; NaN falls into none.

        Args:
            values: ``float64[n]``.

        Returns:
            ``int64[len(counts)]``.
        """
        finite = values[~np.isnan(values)]
        places = np.searchsorted(np.asarray(self.edges), finite, side="right")
        return np.bincount(places, minlength=len(self.counts)).astype(np.int64)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "name": self.name,
            "edges": list(self.edges),
            "counts": list(self.counts),
            "categories": list(self.categories),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "FeatureReference":
        """Decode one feature.

        Raises:
            DecodeError: A field is wrong, the edges do not rise, or the numbers of edges and counts do not fit.
        """
        feature = cls(
            name=fields.text("name", maximum_chars=128),
            edges=fields.numbers("edges"),
            counts=fields.integers("counts"),
            categories=fields.texts("categories"),
        )
        fields.finish()
        if len(feature.counts) != len(feature.edges) + 1:
            raise DecodeError(f"{fields.where}.counts", f"{len(feature.edges) + 1} counts", str(len(feature.counts)))
        if any(left >= right for left, right in zip(feature.edges, feature.edges[1:], strict=False)):
            raise DecodeError(f"{fields.where}.edges", "strictly rising edges", "others")
        if feature.categories and len(feature.categories) != len(feature.counts):
            raise DecodeError(
                f"{fields.where}.categories", f"{len(feature.counts)} names or none", str(len(feature.categories))
            )
        return feature


@dataclass(frozen=True, slots=True)
class Reference:
    """All features of a release."""

    features: tuple[FeatureReference, ...]

    def feature(self, name: str) -> FeatureReference:
        """Return the feature called *name*.

        Raises:
            KeyError: There is none.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)

    def encode(self) -> bytes:
        """Encode as canonical JSON."""
        return encode_json({"version": _VERSION, "features": [feature.to_record() for feature in self.features]})

    @classmethod
    def decode(cls, payload: bytes) -> "Reference":
        """Decode a reference.

        Raises:
            DecodeError: The payload is not one.
        """
        fields = decode_json(payload, "reference", limit_bytes=_LIMIT_BYTES)
        fields.integer("version", minimum=_VERSION, maximum=_VERSION)
        reference = cls(features=fields.sequence("features", FeatureReference.from_fields))
        fields.finish()
        return reference

    def recounted(self, counts: Mapping[str, Sequence[int]]) -> "Reference":
        """Return the same bins with the counts that *counts* has, for the features it names.

        This is how a retrained release takes the world it was trained in as its reference, when that world was only
        seen by devices: their windows are counts in these very bins.
        """
        return Reference(
            tuple(
                FeatureReference(f.name, f.edges, tuple(counts[f.name]), f.categories) if f.name in counts else f
                for f in self.features
            )
        )


def build_reference(
    numeric: Mapping[str, NDArray[np.float64]],
    categorical: Mapping[str, tuple[NDArray[np.float64], Sequence[str]]],
    *,
    bins: int = 10,
) -> Reference:
    """Cut features at reference quantiles and count.

    Args:
        numeric: Feature -> its values, ``float64[n]``. NaN is left out.
        categorical: Feature -> (class index of each value, class names).
        bins: Bins of a numeric feature; fewer where values repeat so much that quantiles coincide.

    Raises:
        ValueError: A feature has no finite value.
    """
    features = []
    for name, values in numeric.items():
        finite = values[np.isfinite(values)]
        if not len(finite):
            raise ValueError(f"the feature {name!r} has no finite value to cut bins from")
        cuts = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1)[1:-1]))
        # A cut at the smallest value would leave the first bin empty for ever.
        edges = tuple(float(cut) for cut in cuts if cut > finite.min())
        empty = FeatureReference(name, edges, (0,) * (len(edges) + 1))
        features.append(FeatureReference(name, edges, tuple(empty.bin(finite).tolist())))
    for name, (indices, categories) in categorical.items():
        edges = tuple(index + 0.5 for index in range(len(categories) - 1))
        empty = FeatureReference(name, edges, (0,) * len(categories), tuple(categories))
        features.append(FeatureReference(name, edges, tuple(empty.bin(indices).tolist()), tuple(categories)))
    return Reference(tuple(features))
