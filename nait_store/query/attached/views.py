"""SQL of the views and macros of an attached file.

Every view reads Parquet files and nothing else of the database: what a view names otherwise would be looked for in
whatever database is the default one of the session that reads it, and might be found in another store's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nait_store.activations.reader import SegmentReader
from nait_store.activations.set_version import SetVersion
from nait_store.query.alignment_table import SCHEMA
from nait_store.query.attached.chosen import Chosen
from nait_store.query.sample_relation import SampleRelation, parquet_sql, row_id_sql
from nait_store.query.spelling import literal
from nait_store.registry.profiles import Profile
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage import layout
from nait_store.storage.location import Location

SAMPLES = "samples"
ALIGNMENT = "alignment"
SNAPSHOT = "snapshot"
ALIGNMENT_COLUMNS = tuple(SCHEMA.names)
"""Of ``alignment(set, profile)``; the views have ``projections`` as well."""

_BETWEEN = "__"
_NO_SCORES = (
    "SELECT CAST(NULL AS VARCHAR) AS profile, CAST(NULL AS BIGINT) AS row_id, CAST(NULL AS DOUBLE) AS score, "
    "CAST(NULL AS FLOAT[]) AS projections WHERE false"
)


def union_all(parts: Sequence[str]) -> str:
    """Put queries together, as a tree of little depth: parsers limit how deep a statement may be."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({union_all(parts[:half])})\nUNION ALL\n({union_all(parts[half:])})"


def alignment_name(set_label: str, profile_label: str) -> str:
    """Name of a view of scores in the schema ``alignment``."""
    return f"{set_label}{_BETWEEN}{profile_label}"


class VersionViews:
    """The views of one set version.

    Parameters
    ----------
    location
        The store's root.
    version
        The set version.

    Attributes
    ----------
    relation
        Its samples.
    """

    def __init__(self, location: Location, version: SetVersion) -> None:
        self._location = location
        self._version = version
        self.relation = SampleRelation(location, version, self._samples_url)

    def samples(self) -> str:
        """Query of the samples."""
        return self.relation.sql()

    def alignment(self, targets: Mapping[str, ScoringTarget]) -> str:
        """Query of the scores under some profiles, by their references; all of these are stored."""
        scores = union_all([self._scores(profile, target) for profile, target in targets.items()])
        # Sidecars have every row of a segment; the samples say which belong to the version, and what they are called.
        samples = self.relation.sql(columns=("sample_id", "row_id"))
        set_ref = literal(self._version.reference)
        return (
            f"SELECT {set_ref} AS activation_set, a.profile, row_id, s.sample_id, a.score, a.projections "
            f"FROM (\n{scores}\n) a JOIN (\n{samples}\n) s USING (row_id)"
        )

    def _scores(self, profile: str, target: ScoringTarget) -> str:
        segments = self._version.segments
        if not segments:
            return _NO_SCORES
        keys = (ScoreSidecars.key(segment, target).key for segment in segments)
        files = parquet_sql(self._location.url_of(layout.score_sidecar(key)) for key in keys)
        return (
            f"SELECT {literal(profile)} AS profile, {row_id_sql(segments)} AS row_id, p.score, p.projections "
            f"FROM {files} p"
        )

    def _samples_url(self, segment: SegmentReader) -> str:
        # Not samples_path(): for a remote store that is a file of this machine's cache.
        return self._location.url_of(f"{layout.segment_folder(self._version.name, segment.segment_id)}/samples.parquet")


def macros(sets: Sequence[Chosen[SetVersion]], profiles: Sequence[Chosen[Profile]], snapshot_id: str) -> Iterable[str]:
    """Statements that make ``samples(set)`` and ``alignment(set, profile)``, as in a store's own SQL.

    A macro looks for what it names in the session's default database. So it looks there for the snapshot's id too,
    and refuses another one: ``USE other; FROM this.samples('pool')`` would else answer from the other file.
    """
    this_snapshot = (
        f"CASE WHEN (SELECT snapshot_id FROM query_table('{SNAPSHOT}')) = {literal(snapshot_id)} THEN true ELSE "
        "CAST(error('make this database the default one first: USE it, or open it by itself') AS BOOLEAN) END"
    )
    set_label, profile_label = _label("set_ref", sets), _label("profile_ref", profiles)
    samples = f"""'{SAMPLES}."' || {set_label} || '"'"""
    yield (f"CREATE MACRO {SAMPLES}(set_ref) AS TABLE SELECT * FROM query_table({samples}) WHERE {this_snapshot}")
    alignment = f"""'{ALIGNMENT}."' || {set_label} || '{_BETWEEN}' || {profile_label} || '"'"""
    yield (
        f"CREATE MACRO {ALIGNMENT}(set_ref, profile_ref) AS TABLE SELECT {', '.join(ALIGNMENT_COLUMNS)} "
        f"FROM query_table({alignment}) WHERE {this_snapshot}"
    )


def _label(argument: str, chosen: Sequence[Chosen[SetVersion]] | Sequence[Chosen[Profile]]) -> str:
    """SQL that turns any name of a chosen version into the label that its views are named after."""
    labels: dict[str, str] = {}
    for one in chosen:
        for name in one.names:
            labels.setdefault(name, one.label)
    labels.update({one.label: one.label for one in chosen})
    entries = ", ".join(f"{literal(name)}: {literal(label)}" for name, label in labels.items())
    return f"coalesce(MAP {{{entries}}}[{argument}], {argument})" if labels else argument
