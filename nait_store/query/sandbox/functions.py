"""The functions of DuckDB that an untrusted query may call, and those that it may knowingly not.

Two lists rather than one: a function of a later DuckDB that stands in neither is refused, and a test says that nobody
has looked at it yet.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _words(
    "!= !~~ !~~* % & && * ** + - ->> / // < <-> << <= <=> <@ = > >= >> @ @> ^ ^@ | || ~ ~~ ~~* ~~~ !__postfix __between"
) | {"IS DISTINCT FROM", "IS NOT DISTINCT FROM"}
"""Operators are functions in the parse tree."""

_NUMBERS = _words(
    """
    abs acos acosh add asin asinh atan atan2 atanh binom bit_count cbrt ceil ceiling cos cosh cot decimal_division
    degrees divide even exp factorial fdiv floor fmod gamma gcd greatest_common_divisor isfinite isinf isnan lcm
    least_common_multiple lgamma ln log log10 log2 mod multiply nextafter pi pow power radians random round round_even
    roundbankers setseed sign signbit sin sinh sqrt subtract tan tanh trunc xor equi_width_bins
    """
)
_TEXTS = _words(
    """
    array_to_string array_to_string_comma_default ascii bar base64 bin bit_length char_length character_length chr
    concat concat_ws contains damerau_levenshtein decode editdist3 encode ends_with format formatReadableDecimalSize
    formatReadableSize format_bytes from_base64 from_binary from_hex hamming hash hex ilike_escape instr jaccard
    jaro_similarity jaro_winkler_similarity lcase left left_grapheme len length length_grapheme levenshtein like_escape
    lower lpad ltrim md5 md5_number md5_number_lower md5_number_upper mismatches nfc_normalize not_ilike_escape
    not_like_escape octet_length ord overlay parse_dirname parse_dirpath parse_filename parse_formatted_bytes
    parse_path position prefix printf regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches
    regexp_replace regexp_split_to_array regexp_split_to_table repeat replace reverse right right_grapheme rpad rtrim
    sha1 sha256 split split_part starts_with str_split str_split_regex string_split string_split_regex string_to_array
    strip_accents strlen strpos substr substring substring_grapheme suffix to_base to_base64 to_binary to_hex translate
    trim ucase unbin unhex unicode upper url_decode url_encode
    """
)
_BITS = _words("bit_position bitstring get_bit set_bit")
_CONDITIONS = _words(
    """
    alias assert_true constant_or_null error greatest if least nullif switch typeof
    """
)
_TIMES = _words(
    """
    age ago century current_date current_localtime current_localtimestamp date_add
    date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek
    dayofyear days_in_month decade epoch epoch_ms epoch_ns epoch_us era get_current_time get_current_timestamp hour
    isodow isoyear julian last_day make_date make_time make_timestamp make_timestamp_ms
    make_timestamp_ns make_timestamptz microsecond millennium millisecond minute month monthname nanosecond
    normalized_interval now quarter second strftime strptime time_bucket timezone timezone_hour timezone_minute
    to_centuries to_days to_decades to_hours to_microseconds to_millennia to_milliseconds to_minutes to_months
    to_quarters to_seconds to_timestamp to_weeks to_years today transaction_timestamp try_strptime week weekday
    weekofyear year yearweek
    """
)
_LISTS = _words(
    """
    apply array_aggr array_aggregate array_append array_apply array_cat array_concat array_contains
    array_cosine_distance array_cosine_similarity array_cross_product array_distance array_distinct array_dot_product
    array_extract array_filter array_grade_up array_has array_has_all array_has_any array_indexof array_inner_product
    array_intersect array_length array_negative_dot_product array_negative_inner_product array_pop_back
    array_pop_front array_position array_prepend array_push_back array_push_front array_reduce array_resize
    array_reverse array_reverse_sort array_select array_slice array_sort array_transform array_unique array_value
    array_where array_zip element_at filter flatten generate_series generate_subscripts grade_up invoke list_aggr
    list_aggregate list_any_value list_append list_apply list_approx_count_distinct list_avg list_bit_and list_bit_or
    list_bit_xor list_bool_and list_bool_or list_cat list_concat list_contains list_cosine_distance
    list_cosine_similarity list_count list_distance list_distinct list_dot_product list_element list_entropy
    list_extract list_filter list_first list_grade_up list_has list_has_all list_has_any list_histogram list_indexof
    list_inner_product list_intersect list_kurtosis list_kurtosis_pop list_last list_mad list_max list_median list_min
    list_mode list_negative_dot_product list_negative_inner_product list_pack list_position list_prepend list_product
    list_reduce list_resize list_reverse list_reverse_sort list_select list_sem list_skewness list_slice list_sort
    list_stddev_pop list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop
    list_var_samp list_where list_zip range reduce unnest unpivot_list aggregate
    """
)
_STRUCTS = _words(
    """
    cardinality enum_code enum_first enum_last enum_range enum_range_boundary map map_concat map_contains
    map_contains_entry map_contains_value map_entries map_extract map_extract_value map_from_entries map_keys
    map_values row struct_concat struct_contains struct_extract struct_extract_at struct_has struct_indexof
    struct_insert struct_keys struct_pack struct_position struct_update struct_values union_extract union_tag
    union_value
    """
)
_JSON = _words(
    """
    array_to_json from_json from_json_strict json json_array json_array_length json_contains json_deep_merge
    json_exists json_extract json_extract_path json_extract_path_text json_extract_string json_group_array
    json_group_object json_group_structure json_insert json_keys json_merge_patch json_merge_patch_diff json_normalize
    json_object json_pretty json_quote json_remove json_replace json_set json_strip_nulls json_structure
    json_transform json_transform_strict json_type json_valid json_value row_to_json to_json
    """
)
_IDENTIFIERS = _words(
    "gen_random_uuid uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7 is_histogram_other_bin"
)
AGGREGATES = _words(
    """
    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last
    arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bitstring_agg bool_and
    bool_or corr count count_if count_star countif covar_pop covar_samp decimal_average entropy favg first fsum geomean
    geometric_mean group_concat histogram histogram_exact kahan_sum kurtosis kurtosis_pop last list listagg lttb mad max
    max_by mean median min min_by mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count
    regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev stddev_pop
    stddev_samp string_agg sum sumkahan var_pop var_samp variance wavg weighted_avg
    """
)
WINDOWS = _words(
    """
    cume_dist dense_rank fill first first_value lag last last_value lead nth_value ntile percent_rank rank rank_dense
    row_number
    """
)
NAMED_AGGREGATION = _words("aggregate array_aggr array_aggregate list_aggr list_aggregate")
"""They call the aggregate whose name is their second argument."""

SCALARS = _NUMBERS | _TEXTS | _BITS | _CONDITIONS | _TIMES | _LISTS | _STRUCTS | _JSON | _IDENTIFIERS
FUNCTIONS = frozenset(name.lower() for name in OPERATORS | SCALARS | AGGREGATES | WINDOWS)
TABLE_FUNCTIONS = _words("generate_series json_each json_tree range repeat repeat_row unnest")

TYPES = _words(
    """
    array bigint bignum binary bit bitstring blob bool boolean bpchar bytea char date datetime dec decimal double enum
    float float4 float8 guid hugeint int int1 int128 int16 int2 int32 int4 int64 int8 integer integral interval json
    list logical long map null numeric nvarchar oid real row short signed smallint string struct text time time_ns
    timestamp timestamp_ms timestamp_ns timestamp_s timestamp_us timestamptz timestamptz_ns timetz tinyint tuple
    ubigint uhugeint uint128 uint16 uint32 uint64 uint8 uinteger union usmallint utinyint uuid varbinary varchar
    varint
    """
) | {"timestamp with time zone", "time with time zone"}
"""Types that a value may be cast to."""

REFUSED_TYPES = _words("geometry type variant")

# What follows is refused by being in no list above. It is written down so that a test can tell it from what is new.

_ABOUT_THE_SESSION = _words(
    """
    current_catalog current_connection_id current_database current_query current_query_id current_role current_schema
    current_schemas current_setting current_transaction_id current_user get_block_size getvariable in_search_path
    inet_client_addr inet_client_port inet_server_addr inet_server_port obj_description shobj_description
    col_description session_user txid_current user version format_type format_pg_type map_to_pg_oid stats vector_type
    """
)
_WITH_EFFECTS = _words("currval nextval setval sleep_ms write_log parse_duckdb_log_message")
_SQL_IN_TEXT = _words("json_deserialize_sql json_serialize_plan json_serialize_sql")
_INTERNALS = _words(
    """
    __cast bitstring_byte_comparable can_cast_implicitly cast_to_type combine combine_aggr create_sort_key finalize
    get_type hive_partition_component icu_sort_key index_key json_copy_strftime_if_date json_copy_strftime_if_timestamp
    make_type path_join remap_struct replace_type sum_no_overflow timetz_byte_comparable to_aggregate_state
    vertex_extract
    """
)
REFUSED_FUNCTIONS = _ABOUT_THE_SESSION | _WITH_EFFECTS | _SQL_IN_TEXT | _INTERNALS
REFUSED_FUNCTION_PREFIXES = ("__internal_", "collate_", "icu_collate_", "pg_", "has_", "st_", "variant_")
"""Compression, collations by function, Postgres' catalog and privileges, geometry, variants."""

REFUSED_TABLE_FUNCTIONS = _words(
    """
    arrow_scan arrow_scan_dumb checkpoint create_external_resource deregister_external_resource
    destroy_external_resource disable_logging disable_profiling enable_logging enable_profiling force_checkpoint glob
    histogram histogram_values icu_calendar_names json_execute_serialized_sql pandas_scan parquet_bloom_probe
    parquet_file_metadata parquet_full_metadata parquet_kv_metadata parquet_metadata parquet_scan parquet_schema
    pg_timezone_names python_arrow_scan python_map_function query query_table read_blob read_csv read_csv_auto
    read_duckdb read_json read_json_auto read_json_objects read_json_objects_auto read_ndjson read_ndjson_auto
    read_ndjson_objects read_parquet read_single_csv_file read_single_json_file read_single_parquet_file read_text
    register_external_resource register_external_resource_type seq_scan sniff_csv summary test_all_types
    test_vector_types truncate_duckdb_logs which_secret
    """
)
REFUSED_TABLE_FUNCTION_PREFIXES = ("duckdb_", "pragma_")
"""Catalog and settings."""
