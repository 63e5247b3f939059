"""What somebody might try with a query that is run for them.

``{tree}`` stands for a folder that is watched: it holds the store, a file with a secret, and the working directory.
``{store}`` is the store's folder, ``{segment}`` a Parquet file of it that the query's own tables are read from.
"""

from __future__ import annotations

from dataclasses import dataclass

from nait_store.errors import ForbiddenError, InvalidInputError, LimitExceededError, NaitStoreError, NotFoundError


@dataclass(frozen=True)
class Attack:
    """One attempt.

    Attributes
    ----------
    name
        Of the attempt.
    query
        What is tried.
    ends_in
        How it must end.
    """

    name: str
    query: str
    ends_in: type[NaitStoreError]


def _forbidden(**queries: str) -> list[Attack]:
    return [Attack(name, query, ForbiddenError) for name, query in queries.items()]


def _invalid(**queries: str) -> list[Attack]:
    return [Attack(name, query, InvalidInputError) for name, query in queries.items()]


def _over(**queries: str) -> list[Attack]:
    return [Attack(name, query, LimitExceededError) for name, query in queries.items()]


WRITES_IN_A_SELECT = _invalid(
    copy_in_a_cte="WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1",
    copy_in_a_cte_over_a_segment=(
        "WITH x AS (COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)) FROM activation_sets"
    ),
    copy_in_a_nested_cte="SELECT * FROM (WITH a AS (WITH b AS (COPY (SELECT 1) TO '{tree}/out.csv') FROM b) FROM a)",
    copy_in_a_subquery="SELECT (WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1)",
    copy_in_an_exists="SELECT EXISTS (WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') FROM x)",
    copy_in_a_union="SELECT 1 UNION ALL (WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 2)",
    copy_in_a_recursive_cte=(
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL "
        "(WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT n + 1 FROM r WHERE n < 3)) FROM r"
    ),
    copy_in_a_lateral_join="FROM range(3) t(i), LATERAL (WITH x AS (COPY (SELECT 1) TO '{tree}/o.csv') SELECT i)",
    copy_in_a_limit="SELECT 1 LIMIT (WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1)",
    copy_in_an_order="SELECT 1 ORDER BY (WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1)",
    copy_in_a_lambda="SELECT list_transform([1], y -> (WITH x AS (COPY (SELECT 1) TO '{tree}/o.csv') SELECT 1))",
    copy_in_a_described_query="DESCRIBE WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1",
    copy_in_a_pivot="FROM (PIVOT (WITH x AS (COPY (SELECT 1) TO '{tree}/o') SELECT 1 a) ON a IN (1) USING sum(a))",
    copy_in_a_window="SELECT sum(1) OVER (ORDER BY (WITH x AS (COPY (SELECT 1) TO '{tree}/o.csv') SELECT 1))",
    copy_in_a_table_function="FROM range((WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1))",
    copy_in_values="VALUES ((WITH x AS (COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1))",
    copy_to_a_program="WITH x AS (COPY (SELECT 1) TO '/dev/stdout') SELECT 1",
    insert_in_a_cte="WITH x AS (INSERT INTO activation_sets SELECT * FROM activation_sets RETURNING *) FROM x",
    update_in_a_cte="WITH x AS (UPDATE activation_sets SET model = 'x' RETURNING *) FROM x",
    an_ideographic_space="WITH x AS (\u3000COPY (SELECT 1) TO '{tree}/out.csv') SELECT 1",
    a_newline_everywhere="WITH\nx\nAS\n(\nCOPY\n(SELECT 1)\nTO\n'{tree}/out.csv'\n)\nSELECT\n1",
    delete_in_a_cte="WITH x AS (DELETE FROM activation_sets RETURNING *) FROM x",
)

OTHER_STATEMENTS = _invalid(
    copy_to="COPY (SELECT 1) TO '{tree}/out.csv'",
    copy_from="COPY activation_sets FROM '{tree}/secret.csv'",
    copy_database="COPY FROM DATABASE memory TO memory",
    export_database="EXPORT DATABASE '{tree}/export'",
    import_database="IMPORT DATABASE '{tree}/export'",
    attach="ATTACH '{tree}/new.duckdb'",
    attach_a_segment="ATTACH '{segment}' AS s",
    detach="DETACH memory",
    use="USE system",
    use_information_schema="USE information_schema",
    install="INSTALL httpfs",
    install_from_a_folder="INSTALL '{tree}/evil.duckdb_extension'",
    load="LOAD '{tree}/evil.duckdb_extension'",
    set_external_access="SET enable_external_access = true",
    set_global="SET GLOBAL lock_configuration = false",
    set_home="SET home_directory = '{tree}'",
    set_temp_directory="SET temp_directory = '{tree}'",
    set_profile_output="SET profiling_output = '{tree}/profile.json'",
    reset="RESET allowed_paths",
    set_variable="SET VARIABLE path = '/etc/passwd'",
    pragma="PRAGMA database_list",
    pragma_profiling="PRAGMA enable_profiling",
    pragma_call="CALL pragma_version()",
    call_logging="CALL enable_logging(storage_path = '{tree}/logs')",
    create_table="CREATE TABLE t AS SELECT 1",
    create_macro_that_shadows="CREATE OR REPLACE MACRO lower(x) AS 'shadowed'",
    create_table_macro_that_shadows="CREATE OR REPLACE MACRO samples(x) AS TABLE SELECT 1",
    create_view_that_shadows="CREATE OR REPLACE VIEW activation_sets AS SELECT 1",
    create_secret="CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'k', SECRET 's')",
    create_type="CREATE TYPE t AS ENUM ('a')",
    create_sequence="CREATE SEQUENCE s",
    drop="DROP VIEW activation_sets",
    alter="ALTER VIEW activation_sets RENAME TO other",
    insert="INSERT INTO activation_sets SELECT * FROM activation_sets",
    insert_after_a_cte="WITH a AS (FROM activation_sets) INSERT INTO activation_sets FROM a",
    delete="DELETE FROM activation_sets",
    truncate="TRUNCATE activation_sets",
    merge="MERGE INTO activation_sets USING activation_sets b ON true WHEN MATCHED THEN DELETE",
    prepare="PREPARE p AS COPY (SELECT 1) TO '{tree}/out.csv'",
    execute="EXECUTE p",
    begin="BEGIN TRANSACTION",
    checkpoint="CHECKPOINT",
    vacuum="VACUUM",
    analyze="ANALYZE",
    comment_on="COMMENT ON VIEW activation_sets IS 'mine'",
    pivot_that_creates_a_type="PIVOT activation_sets ON model USING count(*)",
    two_statements="SELECT 1; COPY (SELECT 1) TO '{tree}/out.csv'",
    two_selects="SELECT 1; SELECT 2",
    a_statement_behind_a_comment="SELECT 1 -- harmless\n; COPY (SELECT 1) TO '{tree}/out.csv'",
    a_statement_behind_an_empty_one=";;; COPY (SELECT 1) TO '{tree}/out.csv'",
    nothing="",
    a_comment="-- nothing\n",
)

FILES = _forbidden(
    read_text="FROM read_text('{tree}/secret.csv')",
    read_blob="FROM read_blob('{tree}/secret.csv')",
    read_csv="FROM read_csv('{tree}/secret.csv')",
    read_csv_auto="FROM read_csv_auto('{tree}/secret.csv')",
    read_json="FROM read_json('{tree}/secret.csv')",
    read_parquet_of_a_segment="FROM read_parquet('{segment}')",
    parquet_scan="FROM parquet_scan('{tree}/*.parquet')",
    parquet_metadata="FROM parquet_metadata('{segment}')",
    read_duckdb="FROM read_duckdb('{store}/catalog.duckdb', table_name = 'sets')",
    sniff_csv="FROM sniff_csv('{tree}/secret.csv')",
    glob="FROM glob('/etc/*')",
    a_url="FROM read_csv('https://example.com/x.csv')",
    a_bucket="FROM read_parquet('s3://bucket/x.parquet')",
    read_text_as_a_scalar="SELECT read_text('{tree}/secret.csv')",
    read_text_by_a_dot="SELECT '{tree}/secret.csv'.read_text()",
    read_text_in_a_lateral_join="FROM (SELECT '{tree}/secret.csv' p) t, read_text(t.p)",
    a_quoted_function="FROM \"read_text\"('{tree}/secret.csv')",
    a_function_in_capitals="FROM READ_TEXT('{tree}/secret.csv')",
    a_qualified_function="FROM system.main.read_text('{tree}/secret.csv')",
    a_function_with_ordinality="FROM read_text('{tree}/secret.csv') WITH ORDINALITY",
    a_path_as_a_table="FROM '{tree}/secret.csv'",
    a_path_in_double_quotes='FROM "{tree}/secret.csv"',
    a_segment_as_a_table="FROM '{segment}'",
    a_path_with_table="TABLE '{tree}/secret.csv'",
    a_path_described="DESCRIBE '{tree}/secret.csv'",
    a_path_summarized="SUMMARIZE '{tree}/secret.csv'",
    a_path_as_cte='WITH "{tree}/secret.csv" AS (SELECT 1) FROM "{tree}/secret.csv"',
    a_path_out_of_the_scope_of_its_cte=(
        'SELECT * FROM (WITH "{tree}/secret.csv" AS (SELECT 1) SELECT 1), "{tree}/secret.csv"'
    ),
    a_path_in_a_pivot="FROM (PIVOT '{tree}/secret.csv' ON a IN (1) USING count(*))",
    a_path_in_an_in="SELECT 1 IN (FROM '{tree}/secret.csv')",
    a_variable_of_the_program="FROM secret_frame",
)

CATALOG = _forbidden(
    settings="FROM duckdb_settings()",
    settings_as_a_view="FROM duckdb_settings",
    secrets="FROM duckdb_secrets()",
    databases="FROM duckdb_databases()",
    functions="FROM duckdb_functions()",
    extensions="FROM duckdb_extensions()",
    logs="FROM duckdb_logs",
    temporary_files="FROM duckdb_temporary_files()",
    sqlite_master="FROM sqlite_master",
    information_schema="FROM information_schema.tables",
    pg_catalog="FROM pg_catalog.pg_class",
    pg_class="FROM pg_class",
    pragma_function="FROM pragma_database_size()",
    a_qualified_view="FROM memory.main.activation_sets",
    a_view_with_a_schema="FROM main.activation_sets",
    a_table_of_the_session='FROM "alignment of pool"',
    a_catalog_view_out_of_the_scope_of_its_cte=(
        "SELECT * FROM (WITH duckdb_settings AS (SELECT 1) FROM duckdb_settings), duckdb_settings"
    ),
    a_cte_named_as_a_catalog_view="WITH pg_class AS (SELECT 1) FROM pg_class",
    a_cte_that_reads_its_namesake="WITH sqlite_master AS (FROM sqlite_master) FROM sqlite_master",
    a_cte_with_a_kelvin_sign="WITH duc\u212adb_settings AS (SELECT 1) FROM duckdb_settings",
    show_tables="SHOW TABLES",
    show_all_tables="SHOW ALL TABLES",
    show_databases="SHOW DATABASES",
    show_in_a_cte="WITH t AS (SHOW ALL TABLES) FROM t",
    current_setting="SELECT current_setting('home_directory')",
    getvariable="SELECT getvariable('path')",
    current_query="SELECT current_query()",
    current_database="SELECT current_database()",
    version="SELECT version()",
    pg_typeof="SELECT pg_typeof(1)",
    has_privilege="SELECT has_table_privilege('activation_sets', 'select')",
    which_secret="FROM which_secret('s3://b', 's3')",
    a_qualified_function_of_the_system="SELECT \"system\".main.current_setting('threads')",
    an_old_version_of_a_table="FROM activation_sets AT (VERSION => 1)",
)

SQL_IN_TEXT = _invalid(
    query_function="FROM query('COPY (SELECT 1) TO ''{tree}/out.csv''')",
    query_table="FROM query_table('{tree}/secret.csv')",
    query_table_list="FROM query_table(['duckdb_settings'])",
)

TRICKS = _forbidden(
    histogram_of_a_named_table="FROM histogram('duckdb_settings', name)",
    json_execute_serialized_sql="FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    json_serialize_sql="SELECT json_serialize_sql('SELECT 1')",
    json_deserialize_sql="SELECT json_deserialize_sql('{}')",
    write_log="SELECT write_log('x', level := 'error')",
    nextval="SELECT nextval('s')",
    sleep="SELECT sleep_ms(100000)",
    pg_sleep="SELECT pg_sleep(100)",
    a_made_up_aggregate_state="SELECT finalize(to_aggregate_state('x'::BLOB, 'sum', [1]))",
    an_exported_state="SELECT sum(1) EXPORT_STATE",
    an_aggregate_by_a_computed_name="SELECT list_aggregate([1], 'su' || 'm')",
    an_aggregate_by_parameter_name="SELECT list_aggregate([1], x) FROM (SELECT 'sum' x)",
    an_internal_function="SELECT __internal_compress_string_ubigint('x')",
    a_scan_of_a_pointer="FROM arrow_scan(1, 2, 3)",
    a_scan_of_another_pointer="FROM pandas_scan(140000000000000)",
    seq_scan="FROM seq_scan('activation_sets')",
    test_types="FROM test_all_types()",
    checkpoint_function="FROM checkpoint()",
    enable_logging="FROM enable_logging()",
    external_resource="FROM create_external_resource('x')",
    a_variant="SELECT 1::VARIANT",
    a_geometry="SELECT st_geomfromwkb('x'::BLOB)",
    a_type_of_a_schema="SELECT 1::main.mine",
    an_unknown_type="SELECT 'x'::regclass",
    sample_of_the_catalog="FROM duckdb_settings() USING SAMPLE 3",
    positional_join_with_the_catalog="FROM activation_sets POSITIONAL JOIN duckdb_settings()",
    a_comment_within_a_function="FROM read_text/* harmless */('{tree}/secret.csv')",
    a_comment_before_a_path="FROM /* activation_sets */ '{tree}/secret.csv'",
    an_escape_in_a_path="FROM read_text(E'{tree}\\x2fsecret.csv')",
    a_dollar_quoted_path="FROM read_text($${tree}/secret.csv$$)",
    a_no_break_space="FROM\u00a0read_text('{tree}/secret.csv')",
    fullwidth_letters="FROM \uff52\uff45\uff41\uff44_text('{tree}/secret.csv')",
    a_function_named_in_unicode="SELECT \u0433ead_text('{tree}/secret.csv')",
)

UNREADABLE = _invalid(
    a_nul_character="SELECT 1 \x00; COPY (SELECT 1) TO '{tree}/out.csv'",
    half_a_surrogate="SELECT '\ud800'",
    an_unclosed_comment="SELECT 1 /* COPY (SELECT 1) TO '{tree}/out.csv'",
    deep_parentheses="SELECT " + "(" * 5000 + "1" + ")" * 5000,
    deep_negation="SELECT " + "NOT " * 5000 + "true",
    deep_addition="SELECT " + "1 + " * 20000 + "1",
    deep_subqueries="SELECT * FROM " + "(SELECT * FROM " * 2000 + "range(1)" + ")" * 2000,
    deep_lists="SELECT " + "[" * 3000 + "1" + "]" * 3000,
    an_escape_sequence_in_a_message="SELECT error(chr(27) || ']0;owned' || chr(7))",
)

PLANS = _forbidden(
    explain="EXPLAIN SELECT 1",
    explain_analyze="EXPLAIN ANALYZE SELECT * FROM read_text('{tree}/secret.csv')",
)

SELECTS = [*WRITES_IN_A_SELECT, *FILES, *CATALOG, *SQL_IN_TEXT, *TRICKS]
"""What DuckDB takes for a SELECT."""

BOMBS = _over(
    a_constant_text="SELECT repeat('x', 4000000000)",
    a_constant_text_of_texts="SELECT repeat(repeat(repeat('x', 1000), 1000), 4000)",
    a_text_per_row="SELECT max(length(repeat('x', 100000000 + range::INT))) FROM range(1000)",
    a_padded_text="SELECT length(lpad('x', 2000000000, 'y'))",
    a_printed_text="SELECT length(printf('%2000000000d', 1))",
    a_constant_list="SELECT length(range(4000000000))",
    a_list_of_lists="SELECT list_transform(range(100000), lambda x: range(100000))",
    a_resized_list="SELECT length(list_resize([1], 4000000000, 1))",
    a_collected_list="SELECT length(list(range)) FROM range(1000000000)",
    a_collected_text="SELECT length(string_agg(range::VARCHAR, ',')) FROM range(10000000000)",
    a_growing_text_in_a_cte=(
        "WITH RECURSIVE r(n, t) AS (SELECT 1, 'x' UNION ALL SELECT n + 1, t || t FROM r) SELECT max(length(t)) FROM r"
    ),
    an_endless_cte="WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    an_endless_cte_of_distinct_rows="WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r) SELECT max(n) FROM r",
    a_doubling_cte="WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r, range(2)) SELECT count(*) FROM r",
    a_cross_join="SELECT sum(a.range * b.range % 7) FROM range(10000000) a, range(10000000) b",
    a_cross_join_in_memory="SELECT DISTINCT a.range, b.range FROM range(1000000) a, range(1000000) b",
    a_tower_of_ctes=(
        "WITH "
        + ", ".join(
            f"c{i} AS (SELECT a.x FROM {f'c{i - 1} a, c{i - 1} b' if i else 'range(2) a(x)'})" for i in range(7)
        )
        + " SELECT max(x) FROM c6"
    ),
    a_sort_of_everything="SELECT * FROM range(10000000000) t(x) ORDER BY hash(x)",
    a_wide_hash_table="SELECT count(*) FROM (SELECT range, count(*) FROM range(10000000000) GROUP BY range)",
    a_window_over_everything="SELECT max(x) FROM (SELECT sum(r) OVER (ORDER BY hash(r)) x FROM range(1000000000) t(r))",
    a_series="SELECT count(*) FROM generate_series(1, 9000000000000000000) WHERE generate_series % 7 = 8",
    a_flood_of_rows="SELECT range FROM range(1000000000)",
    a_flood_of_null="SELECT NULL FROM range(10000000000)",
    a_flood_of_null_in_a_list="SELECT list(NULL) FROM range(10000000)",
    a_flood_of_text="SELECT repeat('x', 1000000) FROM range(1000)",
    a_flood_of_enums="SELECT (['a']::ENUM('" + "x" * 100000 + "', 'a')[])[1] FROM range(10000000)",
    a_flood_of_columns="SELECT " + ", ".join(f"repeat('x', 100000) c{i}" for i in range(100)),
    a_wide_unnest="SELECT unnest(range(100000000))",
    a_long_query="SELECT '" + "x" * 2_000_000 + "'",
)

UNKNOWN = [
    Attack("a_set_that_is_a_path", "FROM samples('../../secret')", InvalidInputError),
    Attack("a_set_that_is_an_absolute_path", "FROM samples('/etc/passwd')", InvalidInputError),
    Attack("a_set_that_does_not_exist", "FROM samples('nothing')", NotFoundError),
]

ATTACKS = [
    *SELECTS, *PLANS, *OTHER_STATEMENTS, *UNREADABLE, *BOMBS, *UNKNOWN,
]  # fmt: skip
