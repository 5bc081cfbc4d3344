"""The training-time distribution of every feature, cut into bins that ship inside the release.

A device counts into these bins, so its counts and the reference are directly comparable: merging is addition and
nothing is approximated (quantile sketches merged over a fleet raise false alarms; see docs/adr/0004).
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.bins import bins_for_each, cut_edges
from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError

__all__ = ["MISSING", "FeatureReference", "Reference", "build_reference"]

MISSING = "missing:"
"""Prefix of the feature that counts missing values: ``missing:<feature>``, with the counts (present, missing)."""

_VERSION = 1
_FEW = 4
_LEAST_TO_SPLIT = 30
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
        missing: How many values were missing (NaN) when *counts* were made.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    categories: tuple[str, ...] = ()
    missing: int = 0

    def bin(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return how many of *values* fall into each bin; NaN falls into none.

        Args:
            values: ``float64[n]``.

        Returns:
            ``int64[len(counts)]``.
        """
        if len(values) <= _FEW:
            # One sample at a time is what a device mostly has, and of thousands of features.
            found = np.zeros(len(self.counts), dtype=np.int64)
            for value in values.tolist():
                if value == value:  # noqa: PLR0124 - NaN
                    found[bisect_right(self.edges, value)] += 1
            return found
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
            # Left out where none was, so that agents of before read it.
            **({"missing": self.missing} if self.missing else {}),
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
            missing=fields.optional_integer("missing") or 0,
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

        Args:
            counts: Feature -> its counts; ``missing:<feature>`` -> how many were present and missing, none if absent.
        """
        return Reference(
            tuple(
                replace(f, counts=tuple(counts[f.name]), missing=tuple(counts.get(MISSING + f.name, (0, 0)))[1])
                if f.name in counts
                else f
                for f in self.features
            )
        )


def build_reference(
    numeric: Mapping[str, NDArray[np.float64]],
    categorical: Mapping[str, tuple[NDArray[np.float64], Sequence[str]]],
    *,
    bins: int = 10,
    inputs: Mapping[str, NDArray[np.float64]] | None = None,
    whole: Collection[str] = (),
) -> Reference:
    """Cut features and count: what a model gives at quantiles, and what it takes so that the unseen has bins too.

    Args:
        numeric: Feature -> its values, ``float64[n]``. NaN is left out. Artifacts give a little more or less than the
            float model, so its extremes are no borders.
        categorical: Feature -> (class index of each value, class names).
        bins: Bins of a numeric feature; fewer where values repeat so much that quantiles coincide.
        inputs: Feature of an input -> its values, ``float64[n]``; NaN is counted as missing. They come first. A third
            of the values cuts the bins, the others are counted.
        whole: Those of *inputs* that are whole numbers.

    Raises:
        ValueError: A feature has no finite value; one of *inputs* may have nothing but NaN.
    """
    features = _input_references(inputs or {}, whole)
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


def _input_references(inputs: Mapping[str, NDArray[np.float64]], whole: Collection[str]) -> list[FeatureReference]:
    """Cut bins from every third value and count the others.

    Cut from values that are counted too, the outermost bins would be empty by choice and not by chance, and a device's
    first new extreme would look like drift.
    """
    features, most = [], bins_for_each(tuple(inputs))
    for name, values in inputs.items():
        finite = values[np.isfinite(values)]
        if not len(finite) and not np.isnan(values).any():
            raise ValueError(f"the feature {name!r} has no finite value to cut bins from")
        is_split = len(values) >= _LEAST_TO_SPLIT
        places = np.arange(len(values))
        cut_from, counted = (places % 3 == 1, places % 3 != 1) if is_split else (places >= 0, places >= 0)
        seen = values[cut_from & np.isfinite(values)] if (cut_from & np.isfinite(values)).any() else finite
        edges = cut_edges(seen, is_whole=name in whole, most=most) if len(seen) else ()
        empty = FeatureReference(name, edges, (0,) * (len(edges) + 1))
        rest = values[counted]
        features.append(
            replace(empty, counts=tuple(empty.bin(rest[np.isfinite(rest)]).tolist()), missing=int(np.isnan(rest).sum()))
        )
    return features
