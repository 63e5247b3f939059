"""The embedding baseline: how near a sample's mean last-layer vector is to that of the in-domain samples, by cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.query.rows import matching_rows
from nait_store.query.spelling import literal
from nait_store.refs import Kind, parse_reference
from nait_store.registry.in_domain import choose_rows
from nait_store.registry.profiles import Profile
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession


@dataclass(frozen=True)
class InDomain:
    """The samples whose centroid candidates are compared with.

    Attributes
    ----------
    set_ref
        Their set, resolved.
    where, limit, seed
        Which of its samples, as for a profile's build.
    """

    set_ref: str
    where: str | None = None
    limit: int | None = None
    seed: int | None = None

    @classmethod
    def of(cls, profile: Profile) -> InDomain:
        """The samples that a profile was built from."""
        source = profile.record.source
        if source is None:
            raise IncompatibleError(
                f"{profile.reference} was not built from samples, but of other profiles or directions: they have no "
                "centroid",
                next_step="name the in-domain samples with --in-domain SET instead",
            )
        return cls(str(source.reference), source.where, source.limit, source.seed)

    def sql(self) -> str:
        """Their row ids and sample ids."""
        condition = "" if self.where is None else f" WHERE (\n{self.where}\n)"
        text = f"SELECT row_id FROM samples({literal(self.set_ref)}){condition}"
        if self.limit is None:
            return text
        return f"{text} ORDER BY sha256('{self.seed or 0}:' || sample_id), sample_id LIMIT {self.limit}"


class Embedding:
    """Cosine of the candidates to the centroid of in-domain samples, in the last layer that is stored.

    Parameters
    ----------
    session, sets
        Of the store.
    version
        The candidates' set.
    in_domain
        What they are compared with.

    Raises
    ------
    NotFoundError
        The in-domain set is gone.
    IncompatibleError
        The two sets measure different things, or store no activations that can be compared.
    """

    def __init__(self, session: QuerySession, sets: ActivationSets, version: SetVersion, in_domain: InDomain) -> None:
        self._session = session
        self._version = version
        self._in_domain = in_domain
        source = sets.open(parse_reference(in_domain.set_ref, Kind.SET))
        if source.record.capture_id != version.record.capture_id:
            raise IncompatibleError(
                f"{source.reference} and {version.reference} were captured with different models, templates or hook "
                "points: their vectors cannot be compared",
                next_step="ingest the in-domain samples as the candidates were; 'nait-store sets show' tells how",
            )
        for one in (source, version):
            if Feature.MEAN not in one.features:
                raise IncompatibleError(
                    f"{one.reference} does not store the mean of activations that --strategy embedding compares",
                    next_step="ingest it with --features mean, and with activations kept",
                )
        self._layer = version.layers[-1]
        if self._layer not in source.layers:
            raise IncompatibleError(
                f"{source.reference} lacks layer {self._layer}, the last of {version.reference}",
                next_step="ingest it with the same --layers",
            )
        subset = None if in_domain.where is None else matching_rows(session, source, in_domain.where)
        rows = choose_rows(source, subset=subset, limit=in_domain.limit, seed=in_domain.seed or 0)
        centroid = rows.mean(Feature.MEAN, self._layer)  # [J] float64
        norm = float(np.linalg.norm(centroid))
        if not norm:
            raise InvalidInputError(
                f"the mean vector of {source.reference} is zero and has no direction",
                next_step="choose other in-domain samples",
            )
        direction = (centroid / norm).astype(np.float32)[None]
        self._target = ScoringTarget(direction, None, (self._layer,), Feature.MEAN, Metric.COSINE)

    def scores(self, row_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """[n] Cosines of these rows of the candidates' set, ascending row ids; one layer is read, and no more."""
        ordinals, rows = row_ids >> ROW_BITS, row_ids & ((1 << ROW_BITS) - 1)
        wanted = {int(ordinal): rows[ordinals == ordinal] for ordinal in np.unique(ordinals)}
        found = self._session.score_rows(self._version, [self._target], wanted)
        parts = [found[ordinal][:, 0] for ordinal in sorted(wanted)]
        return np.concatenate([np.empty(0), *parts])

    def sql(self) -> str:
        """The same in SQL, to rounding: ``row_id`` and ``score_1``."""
        in_domain = literal(self._in_domain.set_ref)
        layer = self._layer
        return (
            "SELECT row_id, coalesce(list_cosine_similarity(activation::DOUBLE[], centroid), 0) AS score_1\n"
            f"FROM activation({literal(self._version.reference)}, {layer}), (\n"
            "    SELECT list(mean ORDER BY neuron) AS centroid FROM (\n"
            "        SELECT neuron, avg(value) AS mean FROM (\n"
            "            SELECT unnest(activation)::DOUBLE AS value, generate_subscripts(activation, 1) AS neuron\n"
            f"            FROM activation({in_domain}, {layer}) WHERE row_id IN ({self._in_domain.sql()})\n"
            "        ) GROUP BY neuron))"
        )
