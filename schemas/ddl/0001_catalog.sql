-- The catalog: an index over the manifests of a store, always rebuildable from them (docs/sql.md).
-- The same statements make the tables of catalog.duckdb and of a query session; COMMENT ON is their documentation,
-- which 'python -m nait_store.query.reference docs/sql.md' copies to that page.

CREATE TABLE activation_sets (
    activation_set VARCHAR NOT NULL,
    latest_version INTEGER NOT NULL,
    n_versions INTEGER NOT NULL,
    n_samples BIGINT NOT NULL,
    n_segments BIGINT NOT NULL,
    n_tokens BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    features VARCHAR[] NOT NULL,
    projections VARCHAR[] NOT NULL,
    layers INTEGER[] NOT NULL,
    n_model_layers INTEGER NOT NULL,
    n_neurons INTEGER NOT NULL,
    hook_point VARCHAR NOT NULL,
    span VARCHAR NOT NULL,
    span_edges VARCHAR NOT NULL,
    template VARCHAR NOT NULL,
    model_source VARCHAR,
    model_fingerprint VARCHAR NOT NULL,
    tokenizer_fingerprint VARCHAR NOT NULL,
    capture_id VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE activation_sets IS 'One row per activation set that has a version, as its latest version is';
COMMENT ON COLUMN activation_sets.activation_set IS 'Name of the set';
COMMENT ON COLUMN activation_sets.latest_version IS 'Number of the latest version, which the bare name means';
COMMENT ON COLUMN activation_sets.n_versions IS 'Versions that exist, deleted ones not counted';
COMMENT ON COLUMN activation_sets.n_samples IS 'Samples of the latest version, deleted ones not counted';
COMMENT ON COLUMN activation_sets.n_segments IS 'Segments of the latest version';
COMMENT ON COLUMN activation_sets.n_tokens IS 'Tokens that went through the model for these segments, deleted samples included';
COMMENT ON COLUMN activation_sets.size_bytes IS 'Bytes of the files of these segments, deleted samples included';
COMMENT ON COLUMN activation_sets.features IS 'Features that every segment stores: mean (over a sample''s tokens), drift (last token minus first), last (last token); projections where no activations are kept';
COMMENT ON COLUMN activation_sets.projections IS 'Profiles whose terms are kept in the place of activations, in their order along the last axis; empty where activations are kept';
COMMENT ON COLUMN activation_sets.layers IS 'Decoder layers that every segment stores, from 0';
COMMENT ON COLUMN activation_sets.n_model_layers IS 'Decoder layers that the model has';
COMMENT ON COLUMN activation_sets.n_neurons IS 'Neurons of a layer: the length J of its vector; where projections are kept, their number';
COMMENT ON COLUMN activation_sets.hook_point IS 'Where in a layer the neurons are read: mlp (input of the down projection), residual (output of the layer) or attn (input of the attention''s output projection)';
COMMENT ON COLUMN activation_sets.span IS 'Which of a sample''s own tokens count: all of them, or those of the response';
COMMENT ON COLUMN activation_sets.span_edges IS 'Whether tokens of the template count too: content (they do not) or rendered (they do)';
COMMENT ON COLUMN activation_sets.template IS 'How a sample became text: chat (the tokenizer''s own template), alpaca or plain';
COMMENT ON COLUMN activation_sets.model_source IS 'Path or hub id of the model and of its adapter, as given to the ingest that wrote the last of these segments; NULL where there are none';
COMMENT ON COLUMN activation_sets.model_fingerprint IS 'SHA-256 of the model''s tensors and configuration: the same wherever the model lies';
COMMENT ON COLUMN activation_sets.tokenizer_fingerprint IS 'SHA-256 of the tokenizer';
COMMENT ON COLUMN activation_sets.capture_id IS 'Hash of all that decides what is measured (model, tokenizer, template, span, hook point): a profile fits the sets that have its own';
COMMENT ON COLUMN activation_sets.created_at IS 'When the set was created';
COMMENT ON COLUMN activation_sets.updated_at IS 'When its latest version was committed';
COMMENT ON COLUMN activation_sets.author IS 'Who created it: user@host, or what NAIT_STORE_AUTHOR said';

CREATE TABLE versions (
    kind VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    is_latest BOOLEAN NOT NULL,
    parent INTEGER,
    operation VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    n_samples BIGINT,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL,
    writer VARCHAR NOT NULL
);
COMMENT ON TABLE versions IS 'One row per version of every set, profile and selection; deleted versions are left out';
COMMENT ON COLUMN versions.kind IS 'set, profile or selection';
COMMENT ON COLUMN versions.name IS 'Name of the set, profile or selection';
COMMENT ON COLUMN versions.version IS 'Number, from 1; numbers are never used again';
COMMENT ON COLUMN versions.reference IS 'What to call it in a query or on the command line: pool@3';
COMMENT ON COLUMN versions.is_latest IS 'Whether it is the latest, which the bare name means';
COMMENT ON COLUMN versions.parent IS 'Number of the version that was the latest when this one was made, which may be deleted by now; NULL for the first, and for selections';
COMMENT ON COLUMN versions.operation IS 'What made it: ingest, delete-samples, restore, compact, purge or repair for sets, build, import or combine for profiles, save for selections';
COMMENT ON COLUMN versions.message IS 'What its author said about it';
COMMENT ON COLUMN versions.n_samples IS 'Samples of a set, deleted ones not counted; in-domain samples of a profile, NULL if it was imported or combined; chosen samples of a selection';
COMMENT ON COLUMN versions.created_at IS 'When it was committed';
COMMENT ON COLUMN versions.author IS 'Who committed it: user@host, or what NAIT_STORE_AUTHOR said';
COMMENT ON COLUMN versions.writer IS 'Program and release that wrote it';

CREATE TABLE segments (
    activation_set VARCHAR NOT NULL,
    segment_id VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,
    first_version INTEGER NOT NULL,
    n_rows BIGINT NOT NULL,
    features VARCHAR[] NOT NULL,
    layers INTEGER[] NOT NULL,
    dtype VARCHAR NOT NULL,
    n_tokens BIGINT NOT NULL,
    n_truncated BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    user_fields VARCHAR[] NOT NULL,
    max_length_tokens INTEGER NOT NULL,
    compute_dtype VARCHAR NOT NULL,
    model_source VARCHAR NOT NULL,
    device VARCHAR NOT NULL,
    record_sha256 VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE segments IS 'One row per segment, the unit that one ingest or compaction writes, of every set''s versions; those of deleted versions alone are left out';
COMMENT ON COLUMN segments.activation_set IS 'Name of the set';
COMMENT ON COLUMN segments.segment_id IS 'ULID of the segment, and name of its folder';
COMMENT ON COLUMN segments.ordinal IS 'Number of the segment within the set: row_id >> 40 of its rows';
COMMENT ON COLUMN segments.first_version IS 'Earliest version that has it, deleted versions not counted';
COMMENT ON COLUMN segments.n_rows IS 'Rows, deleted samples included';
COMMENT ON COLUMN segments.features IS 'Features that it stores: mean, drift, last; or projections';
COMMENT ON COLUMN segments.layers IS 'Decoder layers that it stores, from 0';
COMMENT ON COLUMN segments.dtype IS 'Element type of its arrays: float16, bfloat16, int8 or float32';
COMMENT ON COLUMN segments.n_tokens IS 'Tokens that went through the model, template included';
COMMENT ON COLUMN segments.n_truncated IS 'Samples that were cut at the maximum length';
COMMENT ON COLUMN segments.size_bytes IS 'Bytes of its files';
COMMENT ON COLUMN segments.user_fields IS 'Fields of the records that became columns of samples(set)';
COMMENT ON COLUMN segments.max_length_tokens IS 'The maximum length: samples with more tokens were cut';
COMMENT ON COLUMN segments.compute_dtype IS 'Element type of the model''s weights and forward pass';
COMMENT ON COLUMN segments.model_source IS 'Path or hub id of the model and of its adapter, as given';
COMMENT ON COLUMN segments.device IS 'Device that the model ran on';
COMMENT ON COLUMN segments.record_sha256 IS 'SHA-256 of segment.json, which has the digests of all its other files';
COMMENT ON COLUMN segments.created_at IS 'When it was written';
COMMENT ON COLUMN segments.author IS 'Who wrote it: user@host, or what NAIT_STORE_AUTHOR said';

CREATE TABLE profiles (
    profile VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    is_latest BOOLEAN NOT NULL,
    recipe VARCHAR NOT NULL,
    method VARCHAR NOT NULL,
    center BOOLEAN NOT NULL,
    component INTEGER,
    profile_feature VARCHAR NOT NULL,
    feature VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    made_from VARCHAR NOT NULL,
    source VARCHAR,
    source_where VARCHAR,
    background VARCHAR,
    parts VARCHAR[],
    n_samples BIGINT,
    layers INTEGER[] NOT NULL,
    n_neurons INTEGER NOT NULL,
    mean_explained_variance DOUBLE,
    min_sign_margin DOUBLE,
    warnings VARCHAR[] NOT NULL,
    message VARCHAR NOT NULL,
    card VARCHAR NOT NULL,
    parent INTEGER,
    ported_from VARCHAR,
    family_keys VARCHAR[] NOT NULL,
    model VARCHAR,
    hook_point VARCHAR NOT NULL,
    capture_id VARCHAR NOT NULL,
    recipe_sha256 VARCHAR NOT NULL,
    directions_sha256 VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE profiles IS 'One row per version of every profile; deleted versions are left out';
COMMENT ON COLUMN profiles.profile IS 'Name of the profile';
COMMENT ON COLUMN profiles.version IS 'Number, from 1; numbers are never used again';
COMMENT ON COLUMN profiles.reference IS 'What to call it in a query or on the command line: math@2';
COMMENT ON COLUMN profiles.is_latest IS 'Whether it is the latest, which the bare name means';
COMMENT ON COLUMN profiles.recipe IS 'Name of the choices below: default, nait-paper, or custom for any others; imported and combined where there are none';
COMMENT ON COLUMN profiles.method IS 'What a direction is: pca (a principal component), mean, contrastive (mean minus the background''s mean), imported (read from a file) or combined (a weighted sum of other profiles'' directions)';
COMMENT ON COLUMN profiles.center IS 'Whether PCA removed the mean first; false for other methods';
COMMENT ON COLUMN profiles.component IS 'Which principal component, from 1; NULL for other methods than pca';
COMMENT ON COLUMN profiles.profile_feature IS 'Feature that the directions are made of: mean, drift or last';
COMMENT ON COLUMN profiles.feature IS 'Feature that candidates are scored on: mean, drift or last';
COMMENT ON COLUMN profiles.metric IS 'How a sample''s vector meets a direction: dot (their product) or cosine (that over the vector''s length)';
COMMENT ON COLUMN profiles.made_from IS 'What it was made from, in words: in-domain samples, a file, or other profiles';
COMMENT ON COLUMN profiles.source IS 'Version of the set with the in-domain samples: gsm8k@1; NULL if it was imported or combined';
COMMENT ON COLUMN profiles.source_where IS 'Condition that chose these samples; NULL for all of the version';
COMMENT ON COLUMN profiles.background IS 'Version of the set with the background samples of a contrastive profile; NULL for other methods';
COMMENT ON COLUMN profiles.parts IS 'Versions that it was combined from: math@3, code@2; those that it was made orthogonal to come last; NULL for other methods';
COMMENT ON COLUMN profiles.n_samples IS 'In-domain samples that it was made from; NULL if it was imported or combined';
COMMENT ON COLUMN profiles.layers IS 'Decoder layers that it has a direction for, from 0';
COMMENT ON COLUMN profiles.n_neurons IS 'Neurons of a layer: the length J of a direction';
COMMENT ON COLUMN profiles.mean_explained_variance IS 'Mean over the layers of explained_variance_ratio in profile_layers; NULL where the method has no components';
COMMENT ON COLUMN profiles.min_sign_margin IS 'Least sign_margin of a layer in profile_layers; near 0, the sign of that layer''s direction is a coin toss; NULL if it was imported or combined';
COMMENT ON COLUMN profiles.warnings IS 'What the build warned about';
COMMENT ON COLUMN profiles.message IS 'What its author said about this version';
COMMENT ON COLUMN profiles.card IS 'Free text that describes the profile';
COMMENT ON COLUMN profiles.parent IS 'Number of the version that was the latest when this one was built, which may be deleted by now; NULL for the first';
COMMENT ON COLUMN profiles.ported_from IS 'Profile of another model whose samples and recipe it repeats, as it was called then: math@3; NULL if it was not ported';
COMMENT ON COLUMN profiles.family_keys IS 'Digests of what makes sisters on other models: those of one family have one of them, or their name, in common';
COMMENT ON COLUMN profiles.model IS 'Path or hub id of the model, as given to the ingest of the in-domain samples; NULL where it is not recorded';
COMMENT ON COLUMN profiles.hook_point IS 'Where in a layer the neurons are read: mlp, residual or attn';
COMMENT ON COLUMN profiles.capture_id IS 'Hash of all that decides what is measured: the profile fits the sets that have the same';
COMMENT ON COLUMN profiles.recipe_sha256 IS 'SHA-256 of recipe, layers and what it was made from: making the same again makes no new version';
COMMENT ON COLUMN profiles.directions_sha256 IS 'SHA-256 of its layers, directions and background mean';
COMMENT ON COLUMN profiles.created_at IS 'When it was built';
COMMENT ON COLUMN profiles.author IS 'Who built it: user@host, or what NAIT_STORE_AUTHOR said';

CREATE TABLE profile_layers (
    profile VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    explained_variance_ratio DOUBLE,
    eigenvalue_gap DOUBLE,
    sign_margin DOUBLE NOT NULL
);
COMMENT ON TABLE profile_layers IS 'One row per layer of every profile version that was built from samples, with statistics of its direction';
COMMENT ON COLUMN profile_layers.profile IS 'Name of the profile';
COMMENT ON COLUMN profile_layers.version IS 'Number of the profile''s version';
COMMENT ON COLUMN profile_layers.reference IS 'What to call it in a query or on the command line: math@2';
COMMENT ON COLUMN profile_layers.layer IS 'Decoder layer, from 0';
COMMENT ON COLUMN profile_layers.explained_variance_ratio IS 'Share (0 to 1) of the in-domain samples'' variance that lies along the direction, of their mean square where PCA was not centred; NULL where the method has no components';
COMMENT ON COLUMN profile_layers.eigenvalue_gap IS 'How far (0 to 1) the variance along the direction is from that along the nearest other component, as a share of its own: near 0, which of the two was found is chance; NULL where the method has no components';
COMMENT ON COLUMN profile_layers.sign_margin IS 'How sure the direction''s sign is: |mean · direction| over the standard deviation of sample · direction, of the in-domain samples (their mean minus the background''s for contrastive); near 0 it is a coin toss; at most 1000000';

CREATE TABLE aliases (
    kind VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    alias VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    label_reference VARCHAR NOT NULL,
    is_deleted BOOLEAN NOT NULL,
    n_moves BIGINT NOT NULL,
    reason VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE aliases IS 'One row per alias, a name that moves from version to version: what it names now';
COMMENT ON COLUMN aliases.kind IS 'set, profile or selection';
COMMENT ON COLUMN aliases.name IS 'Name of the set, profile or selection';
COMMENT ON COLUMN aliases.alias IS 'The alias: prod';
COMMENT ON COLUMN aliases.version IS 'Number of the version that it names now';
COMMENT ON COLUMN aliases.reference IS 'That version: pool@3';
COMMENT ON COLUMN aliases.label_reference IS 'The same by its alias: pool@prod';
COMMENT ON COLUMN aliases.is_deleted IS 'Whether that version was deleted: the alias gives an error until it is moved, or the version brought back';
COMMENT ON COLUMN aliases.n_moves IS 'How often it was set, moved or taken away so far';
COMMENT ON COLUMN aliases.reason IS 'Why it was put there, as its author said';
COMMENT ON COLUMN aliases.created_at IS 'When it was put there';
COMMENT ON COLUMN aliases.author IS 'Who put it there: user@host, or what NAIT_STORE_AUTHOR said';

CREATE TABLE tags (
    kind VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    tag VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    label_reference VARCHAR NOT NULL,
    is_deleted BOOLEAN NOT NULL,
    reason VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE tags IS 'One row per tag, a name that stays on a version and keeps it from deletion and gc';
COMMENT ON COLUMN tags.kind IS 'set, profile or selection';
COMMENT ON COLUMN tags.name IS 'Name of the set, profile or selection';
COMMENT ON COLUMN tags.tag IS 'The tag: paper';
COMMENT ON COLUMN tags.version IS 'Number of the version that it is on';
COMMENT ON COLUMN tags.reference IS 'That version: pool@3';
COMMENT ON COLUMN tags.label_reference IS 'The same by its tag: pool@paper';
COMMENT ON COLUMN tags.is_deleted IS 'Whether that version is deleted all the same, though the tag forbids it: the tag gives an error then';
COMMENT ON COLUMN tags.reason IS 'Why it was put there, as its author said';
COMMENT ON COLUMN tags.created_at IS 'When it was put there';
COMMENT ON COLUMN tags.author IS 'Who put it there: user@host, or what NAIT_STORE_AUTHOR said';

CREATE TABLE notes (
    kind VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    note VARCHAR NOT NULL,
    is_deleted BOOLEAN NOT NULL,
    n_texts BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE notes IS 'One row per note, what is said about a version now; notes that were taken away are left out';
COMMENT ON COLUMN notes.kind IS 'set or profile';
COMMENT ON COLUMN notes.name IS 'Name of the set or profile';
COMMENT ON COLUMN notes.version IS 'Number of the version that it is about';
COMMENT ON COLUMN notes.reference IS 'That version: math@3';
COMMENT ON COLUMN notes.note IS 'The text';
COMMENT ON COLUMN notes.is_deleted IS 'Whether that version was deleted';
COMMENT ON COLUMN notes.n_texts IS 'How often it was written, changed or taken away so far';
COMMENT ON COLUMN notes.created_at IS 'When this text was written';
COMMENT ON COLUMN notes.author IS 'Who wrote it: user@host, or what NAIT_STORE_AUTHOR said';

CREATE TABLE selections (
    selection VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    is_latest BOOLEAN NOT NULL,
    activation_set VARCHAR NOT NULL,
    profile VARCHAR,
    strategy VARCHAR NOT NULL,
    top VARCHAR NOT NULL,
    condition VARCHAR,
    seed BIGINT,
    n_candidates BIGINT NOT NULL,
    n_selected BIGINT NOT NULL,
    query VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE selections IS 'One row per version of every saved selection; deleted versions are left out';
COMMENT ON COLUMN selections.selection IS 'Name of the selection';
COMMENT ON COLUMN selections.version IS 'Number, from 1; numbers are never used again';
COMMENT ON COLUMN selections.reference IS 'What to call it in a query or on the command line: best@1';
COMMENT ON COLUMN selections.is_latest IS 'Whether it is the latest, which the bare name means';
COMMENT ON COLUMN selections.activation_set IS 'Version of the set that it chose from: pool@3';
COMMENT ON COLUMN selections.profile IS 'Version of the profile that gave the scores: math@2; of several, math@2, code@1; NULL for a random one without scores';
COMMENT ON COLUMN selections.strategy IS 'alignment (highest scores), lowest (lowest scores), random, length-matched or embedding';
COMMENT ON COLUMN selections.top IS 'How many were asked for: 10% or 562';
COMMENT ON COLUMN selections.condition IS 'Condition that candidates had to meet (--where); NULL for none';
COMMENT ON COLUMN selections.seed IS 'Seed of a random one; NULL for others';
COMMENT ON COLUMN selections.n_candidates IS 'Samples that it chose from';
COMMENT ON COLUMN selections.n_selected IS 'Samples that it chose, those purged since not counted';
COMMENT ON COLUMN selections.query IS 'SQL query that gives the same samples';
COMMENT ON COLUMN selections.message IS 'What its author said about this version';
COMMENT ON COLUMN selections.created_at IS 'When it was saved';
COMMENT ON COLUMN selections.author IS 'Who saved it: user@host, or what NAIT_STORE_AUTHOR said';
