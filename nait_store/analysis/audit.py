"""The audit of a set: what makes its scores, beside the capability that they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.activations.set_version import SetVersion
from nait_store.analysis.audited_scores import ProfileScores, SampleColumns
from nait_store.analysis.findings import Finding, has_warning
from nait_store.analysis.recapture import BatchSpotCheck, recapture
from nait_store.analysis.repeated_texts import RepeatedTexts, count_repeated_texts
from nait_store.analysis.token_effects import SpanFacts, TokenEffects, TokenProbe
from nait_store.errors import InvalidInputError, NaitStoreError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.registry.profiles import Profile
from nait_store.storage.location import Location

if TYPE_CHECKING:
    from nait_store.capture.session import CaptureSession
    from nait_store.query.session import QuerySession
    from nait_store.registry.in_domain import ChosenRows


@dataclass(frozen=True)
class Skipped:
    """A check that could not be made.

    Attributes
    ----------
    why
        The reason.
    next_step
        What would make it possible; empty where nothing would.
    """

    why: str
    next_step: str = ""

    @classmethod
    def by(cls, error: NaitStoreError) -> Skipped:
        """Because of an error."""
        return cls(error.what, error.next_step or "")


@dataclass(frozen=True)
class RecaptureAudit:
    """What capturing some samples again shows.

    Attributes
    ----------
    batches
        What the company in a batch does, and whether the stored numbers come out.
    span
        What the tokens of the samples are.
    effects
        Profile → what the first token, BOS and the template do to its scores.
    """

    batches: BatchSpotCheck
    span: SpanFacts
    effects: Mapping[str, TokenEffects]


@dataclass(frozen=True)
class SetAudit:
    """What makes the scores of a set.

    Attributes
    ----------
    set_ref
        The set version.
    n_samples
        Of it.
    n_truncated
        Those that ``--max-length`` cut.
    max_length_tokens
        Where; the largest of its segments.
    span_edges
        ``content`` or ``rendered``.
    by
        Column that the scores are told apart by.
    n_sources
        Its different values.
    repeats
        Samples with the text of others; or why they were not counted.
    profiles
        The scores under each profile.
    recaptured
        What capturing some samples again shows; or why that was not done.
    warnings
        About the profiles' fit to the set.
    """

    set_ref: str
    n_samples: int
    n_truncated: int
    max_length_tokens: int
    span_edges: str
    by: str
    n_sources: int
    repeats: RepeatedTexts | Skipped
    profiles: tuple[ProfileScores, ...]
    recaptured: RecaptureAudit | Skipped
    warnings: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The same in sentences: what is as it should be, what is not, and what to do next."""
        from nait_store.analysis.audit_findings import audit_findings

        return audit_findings(self)

    @property
    def ok(self) -> bool:
        """Whether no finding is a warning."""
        return not has_warning(self.findings)

    def picture(self, form: str = "png") -> bytes:
        """Draw the scores of each profile by source and by length.

        Parameters
        ----------
        form
            ``png``, ``svg`` or ``pdf``.

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        InvalidInputError
            There are no scores that differ.
        """
        from nait_store.analysis.audit_picture import draw_audit

        return draw_audit(self, form)


def audit_set(
    location: Location,
    session: QuerySession,
    version: SetVersion,
    profiles: Sequence[Profile],
    *,
    by: str,
    recaptured: RecaptureAudit | Skipped,
    warnings: Sequence[str] = (),
) -> SetAudit:
    """Audit what a store has of a set.

    Parameters
    ----------
    location
        The store's root.
    session
        Of the store; scores that are missing are computed.
    version
        The set version.
    profiles
        Those whose scores are looked at.
    by
        Column of the samples that scores are told apart by.
    recaptured
        From :func:`recapture_audit`, or why that was left out.
    warnings
        To be handed on.

    Raises
    ------
    NotFoundError
        There is no such column.
    InvalidInputError
        The set has no sample, or a profile gives none of them a finite score.
    """
    require_samples(version)
    columns = SampleColumns.read(session, version, profiles, by)
    repeats: RepeatedTexts | Skipped
    try:
        repeats = count_repeated_texts(location, session, version)
    except InvalidInputError as error:
        repeats = Skipped.by(error)
    return SetAudit(
        set_ref=version.reference,
        n_samples=columns.n_samples,
        n_truncated=int(columns.truncated.sum()),
        max_length_tokens=max(segment.record.settings.max_length_tokens for segment in version.segments),
        span_edges=version.record.identity.span_edges.value,
        by=by,
        n_sources=len(columns.source_names) + columns.n_other_sources,
        repeats=repeats,
        profiles=tuple(columns.judge(number, profile) for number, profile in enumerate(profiles)),
        recaptured=recaptured,
        warnings=tuple(warnings),
    )


def require_samples(version: SetVersion) -> None:
    """Refuse a set version without a sample."""
    if not version.n_samples:
        raise InvalidInputError(
            f"{version.reference} has no sample to look at", next_step="'nait-store sets history' shows where they went"
        )


def recapture_audit(
    version: SetVersion,
    rows: ChosenRows,
    session: CaptureSession,
    profiles: Sequence[Profile],
    progress: ProgressListener = ignore_progress,
) -> RecaptureAudit:
    """Capture some samples again, and see what their batches and tokens do.

    Parameters
    ----------
    version, rows
        The set version, and samples of it.
    session
        Measures what the set does: the same capture identity, its layers, and all three features.
    profiles
        Whose scores are looked at.
    progress
        Hears of the samples.

    Raises
    ------
    NaitStoreError
        As :func:`~nait_store.analysis.recapture.recapture`.
    """
    again = recapture(version, rows, session, progress)
    probe = TokenProbe(session, again)
    return RecaptureAudit(
        again.check, probe.facts(), {profile.reference: probe.effects(profile.target()) for profile in profiles}
    )
