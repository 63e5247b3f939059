"""Whether a version that was made again is the one that it should be: ids and digests equal, numbers close."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.set_version import SetVersion
from nait_store.activations.tolerances import (
    SCORE_FACTOR,
    capture_tolerance,
    computing_tolerance,
    relative_errors,
    storing_tolerance,
)
from nait_store.errors import NaitStoreError, NotFoundError
from nait_store.refs import Kind, parse_reference
from nait_store.registry.in_domain import ChosenRows, choose_rows
from nait_store.registry.profiles import Profile
from nait_store.schemas.capture import StoredDtype
from nait_store.schemas.profile import ProfileRecord
from nait_store.store.lineage.origins import number_of, sample_sources
from nait_store.store.lineage.steps import Counterpart
from nait_store.store.ranking_checks import Check, counts, ranking_checks

if TYPE_CHECKING:
    from nait_store.store.facade import Store

_COMPARED_SAMPLES = 2048
"""Of a set whose numbers are compared; ids and contents are compared of all."""


class Comparison:
    """Compares versions of a store with those that were made again.

    Parameters
    ----------
    original, made
        The store, and the new one.
    tolerance
        Largest relative error ‖a − b‖ / ‖a‖ of a sample's vector in a layer, and of 1 − cosine of a direction; a tenth
        of the largest error of a score in standard deviations of the scores. None: by the dtypes of the set.
    """

    def __init__(self, original: Store, made: Store, tolerance: float | None = None) -> None:
        self._original = original
        self._made = made
        self._tolerance = tolerance

    def checks(self, pair: Counterpart) -> Iterator[Check]:
        """Compare one version with its counterpart."""
        compare = {Kind.SET: self._set, Kind.PROFILE: self._profile, Kind.SELECTION: self._selection}
        try:
            yield from compare[pair.original.kind](pair)
        except NotFoundError as error:
            yield Check(pair.original.qualified, "existence", False, error.what)

    def tolerance_for(self, version: SetVersion) -> float:
        """What was asked for, else what the dtypes of computing and storing may bring about."""
        if self._tolerance is not None:
            return self._tolerance
        return capture_tolerance(version)

    def _set(self, pair: Counterpart) -> Iterator[Check]:
        subject = pair.original.qualified
        first = self._original.sets.versions.version(pair.original.name, number_of(pair.original))
        second = self._made.sets.open(pair.here)
        before, after = first.record.identity.model_dump(mode="json"), second.record.identity.model_dump(mode="json")
        differing = [name for name in before if before[name] != after[name]]
        detail = f"differs in {', '.join(differing)}" if differing else f"capture id {first.record.capture_id}"
        yield Check(subject, "model, tokenizer, template", not differing, detail)
        contents, again = _contents(first), _contents(second)
        missing, extra = contents.keys() - again.keys(), again.keys() - contents.keys()
        found = f"{len(contents):,} samples" if not (missing or extra) else counts(missing, extra)
        yield Check(subject, "sample ids", not (missing or extra), found)
        changed = [one for one in contents.keys() & again.keys() if contents[one] != again[one]]
        yield Check(subject, "contents", not changed, f"{len(changed):,} differ" if changed else "equal SHA-256")
        if not differing:
            yield self._numbers(subject, first, second, contents.keys() & again.keys())

    def _numbers(self, subject: str, first: SetVersion, second: SetVersion, common: set[str]) -> Check:
        tolerance = self.tolerance_for(first)
        if first.features != second.features or tuple(first.layers) != tuple(second.layers):
            return Check(subject, "activations", False, "other features or layers are stored")
        if not common:
            return Check(subject, "activations", not (first.n_samples or second.n_samples), "no sample in common")
        wanted = sorted(common)
        if len(wanted) > _COMPARED_SAMPLES:
            wanted = np.random.default_rng(0).choice(wanted, _COMPARED_SAMPLES, replace=False).tolist()
        (one, order), (other, other_order) = (_some_of(version, set(wanted)) for version in (first, second))
        worst = 0.0
        for feature in first.features:
            for layer in first.layers:
                a = one.gather(feature, layer)[order].astype(np.float64)
                b = other.gather(feature, layer)[other_order].astype(np.float64)
                worst = max(worst, float(relative_errors(a, b).max()))
        detail = f"largest relative error {worst:.1e} of {len(wanted):,} samples; tolerance {tolerance:.1e}"
        return Check(subject, "activations", worst <= tolerance, detail)

    def _profile(self, pair: Counterpart) -> Iterator[Check]:
        subject = pair.original.qualified
        first = self._original.profiles.registry.version(pair.original.name, number_of(pair.original))
        second = self._made.profiles.open(pair.here)
        same = first.record.recipe_sha256 == second.record.recipe_sha256
        detail = "recipe, samples, settings and layers have one SHA-256"
        if not same:
            detail = f"{_differing(first, second) or 'recipe, settings or layers'} differ"
        yield Check(subject, "recipe and inputs", same, detail)
        tolerance = self._tolerance_of_profile(first)
        if first.record.layers != second.record.layers or first.directions().shape != second.directions().shape:
            yield Check(subject, "directions", False, "other layers or another number of neurons")
            return
        v, w = (one.directions().astype(np.float64).reshape(-1, first.record.n_neurons) for one in (first, second))
        norms = np.linalg.norm(v, axis=1) * np.linalg.norm(w, axis=1)
        cosines = np.divide((v * w).sum(axis=1), norms, out=np.ones(len(v)), where=norms > 0)
        least = float(cosines.min())
        detail = f"least cosine of a layer {least:.6f}; at least {1 - tolerance:.6f}"
        yield Check(subject, "directions", least >= 1 - tolerance, detail)
        offset, again = first.offset(), second.offset()
        if offset is not None or again is not None:
            if offset is None or again is None:
                yield Check(subject, "background mean", False, "only one of the two has it")
                return
            worst = float(relative_errors(offset.astype(np.float64), again.astype(np.float64)).max())
            detail = f"largest relative error {worst:.1e}; tolerance {tolerance:.1e}"
            yield Check(subject, "background mean", worst <= tolerance, detail)

    def _tolerance_of_profile(self, profile: Profile) -> float:
        if self._tolerance is not None:
            return self._tolerance
        record = profile.record
        if record.parts is not None:  # a combination is as far off as its parts may be
            registry = self._original.profiles.registry
            return sum(self._tolerance_of_profile(registry.version(part.name, part.version)) for part in record.parts)
        try:
            source = next(iter(sample_sources(record).values())).reference
            return self.tolerance_for(self._original.sets.versions.version(source.name, number_of(source)))
        except (NaitStoreError, StopIteration):  # a pulled profile's set is in another store
            return computing_tolerance(record.settings) + storing_tolerance(StoredDtype.FLOAT16)

    def _selection(self, pair: Counterpart) -> Iterator[Check]:
        subject = pair.original.qualified
        saved = self._original.selections.version(pair.original.name, number_of(pair.original))
        first, second = saved.rows(), self._made.selections.open(pair.here).rows()
        scored = saved.record.has_scores
        tolerance = 0.0
        if scored:
            set_ref = parse_reference(saved.record.set_ref, Kind.SET)
            opened = self._original.sets.versions.version(set_ref.name, number_of(set_ref))
            tolerance = SCORE_FACTOR * self.tolerance_for(opened)
        yield from ranking_checks(subject, first, second, scored=scored, tolerance=tolerance)


def _contents(version: SetVersion) -> dict[str, str]:
    """Sample id → SHA-256 of its content, of all visible samples."""
    found: dict[str, str] = {}
    for segment in version.segments:
        table = segment.samples(["sample_id", "content_hash"])
        visible = version.visible_rows(segment)
        if visible is not None:
            table = table.filter(visible)
        found.update(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))
    return found


def _some_of(version: SetVersion, wanted: set[str]) -> tuple[ChosenRows, NDArray[np.int64]]:
    """The rows of these samples, and the order that sorts them by id."""
    kept = []
    for segment, rows in choose_rows(version).rows:
        ids = segment.samples(["sample_id"]).column("sample_id").take(rows).to_pylist()
        kept.append((segment, rows[[one in wanted for one in ids]]))
    chosen = ChosenRows(tuple((segment, rows) for segment, rows in kept if len(rows)), "", len(wanted))
    return chosen, np.argsort(np.array(chosen.sample_ids(), dtype=object), kind="stable")


def _differing(first: Profile, second: Profile) -> str:
    """What of two profiles differs that a rebuild should have in common."""
    one, other = first.record, second.record
    facts = {
        "capture identity": (one.capture_id, other.capture_id),
        "settings": (one.settings, other.settings),
        "recipe": (one.recipe, other.recipe),
        "in-domain samples": tuple(_samples_of(record, "built from") for record in (one, other)),
        "background samples": tuple(_samples_of(record, "built against") for record in (one, other)),
        "weights": tuple([part.weight for part in record.parts or ()] for record in (one, other)),
        "layers": (one.layers, other.layers),
    }
    return ", ".join(name for name, (before, after) in facts.items() if before != after)


def _samples_of(record: ProfileRecord, relation: str) -> str | None:
    source = sample_sources(record).get(relation)
    return None if source is None else source.sample_ids_sha256
