"""Keyword options of the store's larger methods, typed once for Python and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Required, TypedDict


class PlacementOptions(TypedDict, total=False):
    """Where a model runs; each has the default that the command line documents."""

    adapter: str | None
    """Folder or hub id of a PEFT adapter to lay over the model."""
    device: str
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    device_map: str | Mapping[str, str | int] | None
    """How to spread the model: ``auto``, ``balanced``, ``balanced_low_0``, ``sequential``, a JSON file, or a mapping of
    module paths to devices."""
    max_memory: Mapping[str, str | int] | None
    """Device → what the weights may take there, ``{"0": "20GiB", "cpu": "60GiB"}``."""
    token_budget: int | Literal["auto"] | None
    """Tokens in a batch; ``auto`` tries them out and remembers; chosen by device if not given."""
    trust_remote_code: bool
    """Whether a model may bring code of its own. Never taken from records: they may be somebody else's."""


class ModelOptions(PlacementOptions, total=False):
    """How a model is loaded and run; each has the default that the command line documents."""

    quantization: Literal["8bit", "4bit"] | None
    """Quantise the weights while they are loaded."""
    compute_dtype: str
    """Of weights and forward pass: ``auto`` (the checkpoint's), ``float32``, ``bfloat16``, ``float16``."""
    devices: str | Sequence[str] | None
    """A copy of the model on each: ``all``, or ``["cuda:0", "cuda:1"]``; they share the batches."""


class RecaptureOptions(PlacementOptions, total=False):
    """Where the model of a set is, and runs, to capture samples again; the rest is as it was recorded."""

    model: str | None
    """Folder or hub id; where the set's ingest had it if not given. So is the adapter."""


class IngestOptions(ModelOptions, total=False):
    """Options of :meth:`nait_store.store.facade.Store.ingest`; each has the default that the command line documents."""

    hook: str
    """``mlp`` (default), ``residual`` or ``attn``."""
    hook_path: str | None
    """Module path within a decoder layer, where the structural rule finds none."""
    layers: Sequence[int] | None
    """Zero-based decoder layers; all of them by default."""
    template: Literal["auto", "chat", "alpaca", "plain"]
    """How a sample becomes text."""
    span: str
    """``all`` (default) content or the ``response`` only."""
    span_edges: str
    """``content`` (default) or ``rendered``."""
    max_length: int | None
    """Tokens at which a sample is truncated; min(2048, the model's limit) by default."""
    dtype: str
    """Of what is stored: ``auto`` (the set's; for a new set float16, or bfloat16 where values come near its range),
    ``float16``, ``bfloat16``, ``int8`` or ``float32``."""
    map: Mapping[str, str] | None
    """Which of the records' fields stands for which canonical one, e.g. ``{"instruction": "question"}``."""
    id_field: str | None
    """Field that holds the sample id; the content's hash by default."""
    on_error: Literal["stop", "skip"]
    """What to do about a broken record."""
    rejects: str | None
    """File that rejected records are written to."""
    limit: int | None
    """Read this many records at most."""
    score_with: str | Sequence[str] | None
    """Profiles to score the samples with while they are written; none for ``()``, by default every one that applies."""
    keep_features: Literal["all", "none"] | None
    """Whether activations are kept, or only their projections on these profiles; as the set does by default."""
    message: str
    """Recorded with the version."""
    ray: str | None
    """Address of a Ray cluster whose workers capture: ``local``, ``auto``, ``host:port``, ``ray://host:port``."""
    ray_workers: int | None
    """Processes of the cluster that load the model; by default one for every group of GPUs, or for every machine."""
    ray_gpus_per_worker: int | None
    """GPUs of each of them; 1 by default, 0 where there are none. Above 1 the model is spread over them, or with
    ``devices`` copied to each."""


class BuildOptions(TypedDict, total=False):
    """Options of :meth:`nait_store.store.profiles.Profiles.build`; what is not given comes from the recipe."""

    against: str | None
    """Background set of the contrastive method."""
    recipe: str
    """``default`` or ``nait-paper``."""
    method: str | None
    """``pca``, ``mean`` or ``contrastive``."""
    center: bool | None
    """Whether PCA removes the mean first."""
    component: int | None
    """Which principal component, from 1; the first by default."""
    profile_feature: str | None
    """Feature that the direction is made of."""
    feature: str | None
    """Feature that candidates are scored on; with ``profile_feature`` not given, it serves for both."""
    metric: str | None
    """``dot`` or ``cosine``."""
    layers: Sequence[int] | None
    """Zero-based decoder layers; all that the set stores by default."""
    weights: str | None
    """How much each in-domain sample counts: a column of theirs, or an SQL expression over their columns; all the same
    by default. Every weight is above 0, and only their ratios count."""
    weights_file: str | None
    """The same from a file with the columns ``sample_id`` and ``weight``."""
    where: str | None
    """Boolean SQL expression over the columns of ``samples(set)``."""
    limit: int | None
    """Use this many samples at most, chosen by ``seed``."""
    seed: int
    """Which samples ``limit`` takes."""
    message: str
    """Recorded with the version."""
    card: str
    """Free text kept in the profile."""
    quality_card: bool
    """Whether to measure the profile's quality card; it is by default."""
    card_against: str | None
    """Set that the card tells in-domain samples from; by default ``against``, and none without."""


class ImportOptions(TypedDict, total=False):
    """Options of :meth:`nait_store.store.profiles.Profiles.import_`."""

    like: str | None
    """Set or profile that was captured as the directions were, ``pool`` or ``profile:math@2``; needed where the file
    does not say."""
    layers: Sequence[int] | None
    """Zero-based decoder layers of the rows of an array [L, J], in their order, where the file does not say."""
    feature: str | None
    """Feature that candidates are scored on; as the file says, else ``mean``."""
    metric: str | None
    """``dot`` or ``cosine``; as the file says, else ``cosine``."""
    message: str
    """Recorded with the version."""
    card: str
    """Free text kept in the profile; as the file says, if it does."""


class CombineOptions(TypedDict, total=False):
    """Options of :meth:`nait_store.store.profiles.Profiles.combine`."""

    without: Sequence[str]
    """Profiles that the sum is made orthogonal to in every layer."""
    offset: str | None
    """The part whose background's mean candidates are centred on, or ``none``; needed where the parts differ in it."""
    feature: str | None
    """Feature that candidates are scored on; needed where the parts differ in it."""
    metric: str | None
    """``dot`` or ``cosine``; needed where the parts differ in it."""
    message: str
    """Recorded with the version."""
    card: str
    """Free text kept in the profile."""


class PortOptions(ModelOptions, total=False):
    """Options of :meth:`nait_store.store.profiles.Profiles.port`; what is not given is as in the profile."""

    name: str | None
    """Of the sister profile; the first profile's with the model's by default, ``math-qwen``."""
    set: str | None
    """Set for the reference samples; by default one of the model that holds them, else their set's name with the
    model's, ``gsm8k-qwen``."""
    layers: Sequence[int] | Literal["all"] | None
    """Zero-based decoder layers of the model; all of them by default, if the profile has all of its own model's."""
    template: Literal["auto", "chat", "alpaca", "plain"] | None
    """How a sample becomes text; the profile's by default, and ``auto`` where that is a chat template."""
    max_length: int | None
    """Tokens at which a sample is truncated; as for the profile by default, or the model's limit if that is less."""
    hook_path: str | None
    """Module path within a decoder layer, where the structural rule finds none."""
    dtype: str
    """Of what is stored, as for an ingest."""
    reference_files: Sequence[str]
    """Where the reference samples are to be found, if the store does not hold them: files as for an ingest."""
    map: Mapping[str, str] | None
    """As given to the ingest of the reference samples; only needed for ``reference_files``, and where it has more than
    three fields."""
    id_field: str | None
    """As given to the ingest of the reference samples; only needed for ``reference_files``."""
    allow_missing: bool
    """Whether to build from those reference samples that were found."""
    against: str | None
    """Set of the model to take as background of a contrastive profile; by default one that holds the very samples."""
    capture_background: bool
    """Whether to capture the background's samples too, where no set of the model holds them."""
    message: str
    """Recorded with the version."""


class SelectOptions(TypedDict, total=False):
    """Options of :meth:`nait_store.store.facade.Store.select`."""

    combine: Literal["union", "sum", "min", "rrf", "norm"] | None
    """How several profiles make one order; each one's best in turn by default."""
    min_profiles: int | None
    """Take the samples that are in the top of so many of several profiles, however many these are."""
    strategy: Literal["alignment", "lowest", "random", "length-matched", "embedding"]
    """Highest score first (default), lowest first, by chance, by chance with the lengths that alignment takes, or by
    cosine to the in-domain samples' centroid in the last layer."""
    seed: int
    """Of a random or length-matched selection; 0 by default."""
    in_domain: str | None
    """Set whose centroid ``embedding`` compares with; by default the samples that the profile was built from."""
    fuse: Mapping[str, float] | Sequence[str]
    """Columns of numbers to add to the score, each with a weight: ``{"quality": 0.5}`` or ``["quality:0.5"]``."""
    fuse_by: Literal["minmax", "rank"] | None
    """How score and columns are put on one scale from 0 to 1; ``minmax`` by default."""
    where: str | None
    """Boolean SQL expression over the columns of ``samples(set)``."""
    budget_tokens: int | None
    """Tokens that the selection may have; samples are taken in order until the next one would not fit."""
    quota: str | None
    """What the values of a column give: ``source=alpaca:50%,code:20%``, exactly; all others give the rest."""
    per: str | None
    """Column of groups, each of which gives its own top."""
    min_score: float | None
    """Score that the chosen have at least."""
    knee: bool
    """Whether the score curve decides the number."""
    drop_duplicates: str | Sequence[str]
    """What counts as a duplicate of a better-ranked sample and is left out: ``exact`` (equal texts), ``near`` or
    ``near:0.9`` (Jaccard similarity of texts), ``cosine`` or ``cosine:0.98`` (of activations)."""
    diversity: Literal["k-center", "facility-location", "none"] | None
    """How samples are spread over the best; by default they are taken by rank."""
    among: str | int | None
    """Over how many of the best, ``1500`` or ``"30%"`` of the candidates; thrice the number to be taken by default."""
    force: bool
    """Whether to silence compatibility warnings."""


class ExportOptions(TypedDict, total=False):
    """Options of :meth:`nait_store.store.facade.Store.export`."""

    format: str | None
    """``jsonl``, ``parquet`` or ``ids``; by default what the file's name ends in, else JSON lines."""
    clean: bool
    """Whether to leave score and rank out."""
    overwrite: bool
    """Whether an existing file may be replaced."""


class TrainerOptions(TypedDict, total=False):
    """Options of :meth:`nait_store.store.selections.Selections.export`."""

    to: Required[str]
    """``llama-factory``, ``axolotl``, ``trl``, ``hf-datasets``, ``jsonl``, ``parquet`` or ``ids``."""
    layout: str | None
    """``alpaca``, ``sharegpt``, ``messages``, ``prompt-completion`` or ``text``; by default the first of the trainer's
    that holds every sample, and for ``hf-datasets``, ``jsonl`` and ``parquet`` the records as they are."""
    name: str | None
    """Of the data set and its files; by default ``best-1`` for ``best@1``."""
    shuffle: int | None
    """Seed of the order; by rank if not given."""
    map: Mapping[str, str] | None
    """Which of the records' fields stands for which canonical one; by default as recorded by ``ingest``."""
    on_error: Literal["stop", "skip"]
    """What to do about a sample that the layout has no place for."""
    overwrite: bool
    """Whether files, and an entry of ``dataset_info.json``, may be replaced."""
