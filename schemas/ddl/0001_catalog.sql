-- The catalog: an index over the manifests of a store, always rebuildable from them (docs/sql.md).
-- The same statements make the tables of catalog.duckdb and of a query session; COMMENT ON is their documentation.

CREATE TABLE activation_sets (
    activation_set VARCHAR NOT NULL,
    latest_version INTEGER NOT NULL,
    n_versions INTEGER NOT NULL,
    n_samples BIGINT NOT NULL,
    n_segments BIGINT NOT NULL,
    n_tokens BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    features VARCHAR[] NOT NULL,
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
COMMENT ON TABLE activation_sets IS 'One row per activation set, at its latest version';
COMMENT ON COLUMN activation_sets.activation_set IS 'Name of the set';
COMMENT ON COLUMN activation_sets.latest_version IS 'Number of the latest version';
COMMENT ON COLUMN activation_sets.n_versions IS 'Versions that exist, deleted ones not counted';
COMMENT ON COLUMN activation_sets.n_samples IS 'Visible samples of the latest version';
COMMENT ON COLUMN activation_sets.n_segments IS 'Segments of the latest version';
COMMENT ON COLUMN activation_sets.n_tokens IS 'Tokens that went through the model for its segments';
COMMENT ON COLUMN activation_sets.size_bytes IS 'Bytes of the files of its segments';
COMMENT ON COLUMN activation_sets.features IS 'Features that every segment stores: mean, drift, last';
COMMENT ON COLUMN activation_sets.layers IS 'Zero-based decoder layers that every segment stores';
COMMENT ON COLUMN activation_sets.n_model_layers IS 'Decoder layers of the model';
COMMENT ON COLUMN activation_sets.n_neurons IS 'J, the width of a layer''s vector';
COMMENT ON COLUMN activation_sets.hook_point IS 'Where the neurons are read: mlp, residual or attn';
COMMENT ON COLUMN activation_sets.span IS 'Which tokens of a sample count: all or response';
COMMENT ON COLUMN activation_sets.span_edges IS 'content or rendered';
COMMENT ON COLUMN activation_sets.template IS 'How a sample became text: chat, alpaca or plain';
COMMENT ON COLUMN activation_sets.model_source IS 'Path or hub id of the model, as given to the latest ingest';
COMMENT ON COLUMN activation_sets.model_fingerprint IS 'SHA-256 over tensors and configuration';
COMMENT ON COLUMN activation_sets.tokenizer_fingerprint IS 'SHA-256 over the tokenizer';
COMMENT ON COLUMN activation_sets.capture_id IS 'Hash of everything that decides what is measured';
COMMENT ON COLUMN activation_sets.created_at IS 'When the set was created';
COMMENT ON COLUMN activation_sets.updated_at IS 'When its latest version was committed';
COMMENT ON COLUMN activation_sets.author IS 'Who created it';

CREATE TABLE versions (
    kind VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    is_latest BOOLEAN NOT NULL,
    parent INTEGER,
    operation VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    n_samples BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL,
    writer VARCHAR NOT NULL
);
COMMENT ON TABLE versions IS 'One row per version of every set, profile and selection; deleted ones are left out';
COMMENT ON COLUMN versions.kind IS 'set, profile or selection';
COMMENT ON COLUMN versions.name IS 'Name of the set, profile or selection';
COMMENT ON COLUMN versions.version IS 'Number, from 1';
COMMENT ON COLUMN versions.reference IS 'How to refer to it: pool@3';
COMMENT ON COLUMN versions.is_latest IS 'Whether the bare name means this version';
COMMENT ON COLUMN versions.parent IS 'The version it was made from';
COMMENT ON COLUMN versions.operation IS 'ingest, delete-samples, restore, compact, purge or repair for sets, build for profiles, save for selections';
COMMENT ON COLUMN versions.message IS 'What its author said about it';
COMMENT ON COLUMN versions.n_samples IS 'Samples visible in a set, used for a profile, chosen by a selection';
COMMENT ON COLUMN versions.created_at IS 'When it was committed';
COMMENT ON COLUMN versions.author IS 'Who committed it';
COMMENT ON COLUMN versions.writer IS 'Program that wrote it';

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
COMMENT ON TABLE segments IS 'One row per segment that a version of a set refers to';
COMMENT ON COLUMN segments.activation_set IS 'Name of the set';
COMMENT ON COLUMN segments.segment_id IS 'ULID; name of the segment''s folder';
COMMENT ON COLUMN segments.ordinal IS 'High bits of row_id: row_id >> 40';
COMMENT ON COLUMN segments.first_version IS 'The version that added it';
COMMENT ON COLUMN segments.n_rows IS 'Rows, those that a version leaves out included';
COMMENT ON COLUMN segments.features IS 'Features it stores';
COMMENT ON COLUMN segments.layers IS 'Zero-based decoder layers it stores';
COMMENT ON COLUMN segments.dtype IS 'Element type of its arrays';
COMMENT ON COLUMN segments.n_tokens IS 'Tokens that went through the model';
COMMENT ON COLUMN segments.n_truncated IS 'Samples cut at the maximum length';
COMMENT ON COLUMN segments.size_bytes IS 'Bytes of its files';
COMMENT ON COLUMN segments.user_fields IS 'Fields of the records that became columns of samples(set)';
COMMENT ON COLUMN segments.max_length_tokens IS 'Samples longer than this were cut';
COMMENT ON COLUMN segments.compute_dtype IS 'Dtype of the forward pass';
COMMENT ON COLUMN segments.model_source IS 'Path or hub id of the model, as given';
COMMENT ON COLUMN segments.device IS 'Device of the forward pass';
COMMENT ON COLUMN segments.record_sha256 IS 'Digest of segment.json, hence of everything in the segment';
COMMENT ON COLUMN segments.created_at IS 'When it was written';
COMMENT ON COLUMN segments.author IS 'Who wrote it';

CREATE TABLE profiles (
    profile VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    is_latest BOOLEAN NOT NULL,
    recipe VARCHAR NOT NULL,
    method VARCHAR NOT NULL,
    center BOOLEAN NOT NULL,
    profile_feature VARCHAR NOT NULL,
    feature VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    source_where VARCHAR,
    background VARCHAR,
    n_samples BIGINT NOT NULL,
    layers INTEGER[] NOT NULL,
    n_neurons INTEGER NOT NULL,
    mean_explained_variance DOUBLE,
    min_sign_margin DOUBLE,
    warnings VARCHAR[] NOT NULL,
    message VARCHAR NOT NULL,
    card VARCHAR NOT NULL,
    parent INTEGER,
    hook_point VARCHAR NOT NULL,
    capture_id VARCHAR NOT NULL,
    recipe_sha256 VARCHAR NOT NULL,
    directions_sha256 VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL
);
COMMENT ON TABLE profiles IS 'One row per version of every profile';
COMMENT ON COLUMN profiles.profile IS 'Name of the profile';
COMMENT ON COLUMN profiles.version IS 'Number, from 1';
COMMENT ON COLUMN profiles.reference IS 'How to refer to it: math@2';
COMMENT ON COLUMN profiles.is_latest IS 'Whether the bare name means this version';
COMMENT ON COLUMN profiles.recipe IS 'default, nait-paper or custom';
COMMENT ON COLUMN profiles.method IS 'pca, mean or contrastive';
COMMENT ON COLUMN profiles.center IS 'Whether PCA removed the mean first';
COMMENT ON COLUMN profiles.profile_feature IS 'Feature that the directions are made of';
COMMENT ON COLUMN profiles.feature IS 'Feature that candidates are scored on';
COMMENT ON COLUMN profiles.metric IS 'dot or cosine';
COMMENT ON COLUMN profiles.source IS 'Set version with the in-domain samples: gsm8k@1';
COMMENT ON COLUMN profiles.source_where IS 'Condition that chose them, if any';
COMMENT ON COLUMN profiles.background IS 'Set version with the background samples of a contrastive profile';
COMMENT ON COLUMN profiles.n_samples IS 'M, in-domain samples';
COMMENT ON COLUMN profiles.layers IS 'Zero-based decoder layers it has a direction for';
COMMENT ON COLUMN profiles.n_neurons IS 'J, the width of a direction';
COMMENT ON COLUMN profiles.mean_explained_variance IS 'Explained-variance ratio, mean over the layers; NULL where the method has none';
COMMENT ON COLUMN profiles.min_sign_margin IS 'Smallest sign margin of a layer; near 0, the sign is a coin toss';
COMMENT ON COLUMN profiles.warnings IS 'What the build warned about';
COMMENT ON COLUMN profiles.message IS 'What its author said about this version';
COMMENT ON COLUMN profiles.card IS 'Free text about the profile';
COMMENT ON COLUMN profiles.parent IS 'The version that was latest when it was built';
COMMENT ON COLUMN profiles.hook_point IS 'Where the neurons are read';
COMMENT ON COLUMN profiles.capture_id IS 'Must equal that of a set to be scored';
COMMENT ON COLUMN profiles.recipe_sha256 IS 'Equal for equal recipes on equal inputs';
COMMENT ON COLUMN profiles.directions_sha256 IS 'Digest of its directions';
COMMENT ON COLUMN profiles.created_at IS 'When it was built';
COMMENT ON COLUMN profiles.author IS 'Who built it';

CREATE TABLE profile_layers (
    profile VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    reference VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    explained_variance_ratio DOUBLE,
    sign_margin DOUBLE NOT NULL
);
COMMENT ON TABLE profile_layers IS 'One row per layer of every profile version';
COMMENT ON COLUMN profile_layers.profile IS 'Name of the profile';
COMMENT ON COLUMN profile_layers.version IS 'Number, from 1';
COMMENT ON COLUMN profile_layers.reference IS 'How to refer to it: math@2';
COMMENT ON COLUMN profile_layers.layer IS 'Zero-based decoder layer';
COMMENT ON COLUMN profile_layers.explained_variance_ratio IS 'Share of the variance on the component; NULL where the method has none';
COMMENT ON COLUMN profile_layers.sign_margin IS '|mean · v| over the standard deviation of the projections';

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
COMMENT ON TABLE selections IS 'One row per version of every saved selection';
COMMENT ON COLUMN selections.selection IS 'Name of the selection';
COMMENT ON COLUMN selections.version IS 'Number, from 1';
COMMENT ON COLUMN selections.reference IS 'How to refer to it: best@1';
COMMENT ON COLUMN selections.is_latest IS 'Whether the bare name means this version';
COMMENT ON COLUMN selections.activation_set IS 'Set version it chose from: pool@3';
COMMENT ON COLUMN selections.profile IS 'Profile version it ranked by; NULL for a random one';
COMMENT ON COLUMN selections.strategy IS 'alignment, lowest or random';
COMMENT ON COLUMN selections.top IS 'Budget as asked: 10% or 562';
COMMENT ON COLUMN selections.condition IS 'The --where that candidates met, if any';
COMMENT ON COLUMN selections.seed IS 'Seed of a random one';
COMMENT ON COLUMN selections.n_candidates IS 'Samples it chose from';
COMMENT ON COLUMN selections.n_selected IS 'Samples it chose';
COMMENT ON COLUMN selections.query IS 'SQL that reproduces it';
COMMENT ON COLUMN selections.message IS 'What its author said about it';
COMMENT ON COLUMN selections.created_at IS 'When it was saved';
COMMENT ON COLUMN selections.author IS 'Who saved it';
