"""From records to samples: layouts, ids, columns."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nait_store.capture.conversations import FieldMap, Turn, make_sample
from nait_store.capture.readers import SourceRecord
from nait_store.errors import InvalidInputError
from nait_store.schemas.samples import MAX_USER_FIELDS


def sample(record, **options):
    return make_sample(SourceRecord(record, "data.jsonl", 6, 7), **options)


def turns(record, **options):
    return [(turn.role, turn.content) for turn in sample(record, **options).turns]


ASKED = [("user", "How many?"), ("assistant", "Two.")]


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "How many?", "input": "", "output": "Two."},
        {"instruction": "How many?", "output": "Two."},
        {"instruction": "How many?", "response": "Two."},
        {"instruction": "How many?", "input": None, "output": "Two.", "text": "### How many? Two."},
        {"question": "How many?", "answer": "Two."},
        {"question": "How many?", "response": "Two."},
        {"prompt": "How many?", "completion": "Two."},
        {"prompt": "How many?", "response": "Two."},
        {
            "prompt": [{"role": "user", "content": "How many?"}],
            "completion": [{"role": "assistant", "content": "Two."}],
        },
        {"conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Two."}]},
        {"conversations": {"from": ["human", "gpt"], "value": ["How many?", "Two."]}},
        {"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}]},
        {"messages": '[{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}]'},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "many?"}]},
                {"role": "Assistant", "content": "Two."},
            ]
        },
    ],
)
def test_every_layout_gives_the_same_turns(record):
    assert turns(record) == ASKED


def test_an_alpaca_input_follows_its_instruction_and_is_told_apart_from_it():
    (user, _) = sample({"instruction": "Sum up.", "input": "A text.", "output": "Text."}).turns
    assert user == Turn("user", "Sum up.\n\nA text.", 9)
    assert [user.content[start:end] for start, end in user.own_parts] == ["Sum up.", "A text."]


def test_numbers_are_taken_as_text():
    assert turns({"question": "1 + 1?", "answer": 2}) == [("user", "1 + 1?"), ("assistant", "2")]


def test_bare_text_is_one_turn():
    assert turns({"text": "Once upon a time"}) == [("text", "Once upon a time")]


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_system_field_comes_first(name):
    assert turns({name: "Be brief.", "question": "How many?", "answer": "Two."})[0] == ("system", "Be brief.")


def test_a_system_message_is_not_doubled_by_the_field():
    record = {"system": "x", "messages": [{"role": "system", "content": "y"}, {"role": "user", "content": "hi"}]}
    assert turns(record) == [("system", "y"), ("user", "hi")]


def test_tool_calls_and_results_are_turns_of_their_own():
    record = {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
            {"role": "tool", "content": "rain"},
            {"role": "function", "content": "wind"},
            {"role": "assistant", "content": "Rain and wind."},
        ]
    }
    assert turns(record) == [
        ("user", "Weather?"),
        ("assistant", '[{"function":{"arguments":"{}","name":"look"}}]'),
        ("tool", "rain"),
        ("tool", "wind"),
        ("assistant", "Rain and wind."),
    ]


def test_an_empty_answer_stays_as_an_empty_turn():
    assert turns({"instruction": "Say nothing.", "output": ""}) == [("user", "Say nothing."), ("assistant", "")]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({}, "no usable fields.*no fields"),
        ({"id": 1, "foo": "a", "bar": "b"}, "no usable fields.*'id', 'foo', 'bar'"),
        ({"instruction": "a"}, "instruction but no output"),
        ({"question": "a", "explanation": "b"}, "'question' but none of 'answer'"),
        ({"instruction": "", "output": ""}, "no text"),
        ({"text": "  \n"}, "no text"),
        ({"messages": []}, "no text"),
        ({"messages": "hello"}, "not a list of messages"),
        ({"messages": ["hello"]}, r"messages\[0\] is no message"),
        ({"messages": [{"content": "hello"}]}, r"messages\[0\] is no message"),
        ({"messages": [{"role": "wizard", "content": "hello"}]}, "unknown role 'wizard'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "type 'image_url'"),
        ({"instruction": {"a": 1}, "output": "b"}, "'instruction' is an object, not text"),
        ({"instruction": ["a", 1], "output": "b"}, "holds a number, not text"),
    ],
)
def test_an_unusable_record_is_refused_with_place_and_reason(record, problem):
    with pytest.raises(InvalidInputError, match=rf"(?s)data\.jsonl:7: .*{problem}"):
        sample(record)


def test_the_accepted_layouts_are_named_where_none_fits():
    with pytest.raises(InvalidInputError, match="accepted layouts") as caught:
        sample({"foo": "a"})
    assert "instruction/input/output" in str(caught.value)


# ---- --map


def test_a_map_renames_fields():
    assert (
        turns(
            {"problem": "How many?", "solution": "Two."},
            field_map=FieldMap.parse("instruction=problem,output=solution"),
        )
        == ASKED
    )


def test_a_mapped_layout_is_taken_before_another_that_fits():
    record = {"instruction": "a", "output": "b", "body": "the text"}
    assert turns(record, field_map=FieldMap.of({"text": "body"})) == [("text", "the text")]
    record = {"messages": [{"role": "user", "content": "no"}], "q": "How many?", "output": "Two."}
    assert turns(record, field_map=FieldMap.of({"instruction": "q"})) == ASKED


@pytest.mark.parametrize("text", ["", "instruction", "instruction=", "=question", "a=b", "input=a,input=b"])
def test_a_bad_map_is_refused(text):
    with pytest.raises(InvalidInputError):
        FieldMap.parse(text)


def test_an_unknown_canonical_field_suggests_the_near_one():
    with pytest.raises(InvalidInputError, match="instructions") as caught:
        FieldMap.parse("instructions=q")
    assert "'instruction'" in str(caught.value)


def test_a_missing_column_lists_the_fields_and_near_names():
    with pytest.raises(InvalidInputError, match=r"no field 'quesion'.*'question', 'answer'") as caught:
        sample({"question": "a", "answer": "b"}, field_map=FieldMap.parse("instruction=quesion"))
    assert "did you mean 'question'?" in str(caught.value)


# ---- ids


def test_the_id_is_the_first_128_bits_of_the_canonical_records_digest():
    found = sample({"output": "b", "instruction": "é"})
    digest = hashlib.sha256('{"instruction":"é","output":"b"}'.encode()).hexdigest()
    assert found.content_hash == digest
    assert found.sample_id == digest[:32]
    assert found.record_json == '{"instruction":"é","output":"b"}'


def test_a_map_gives_the_id_of_the_record_with_canonical_names():
    mapped = sample({"q": "a", "r": "b", "extra": 1}, field_map=FieldMap.parse("instruction=q,output=r"))
    assert mapped.sample_id == sample({"instruction": "a", "output": "b", "extra": 1}).sample_id
    assert json.loads(mapped.record_json) == {"q": "a", "r": "b", "extra": 1}
    assert mapped.fields == {"q": "a", "r": "b", "extra": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: _is_utf8(value))


def _is_utf8(value):
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(st.dictionaries(st.text("abcde", min_size=1, max_size=3), json_values, max_size=5), st.randoms())
def test_ids_do_not_depend_on_field_order_place_or_spelling(extra, random):
    record = {**extra, "text": "hello"}
    items = list(record.items())
    random.shuffle(items)
    again = json.loads(json.dumps(dict(items), indent=3))
    first = sample(record)
    second = make_sample(SourceRecord(again, "elsewhere.parquet", 0, None))
    assert (first.sample_id, first.content_hash) == (second.sample_id, second.content_hash)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), json_values, min_size=1, max_size=4), json_values)
def test_a_changed_value_changes_the_id(extra, value):
    name = next(iter(extra))
    changed = {**extra, name: value}
    same = json.dumps(changed, sort_keys=True) == json.dumps(extra, sort_keys=True)
    assert (sample({**extra, "text": "x"}).sample_id == sample({**changed, "text": "x"}).sample_id) == same


@pytest.mark.parametrize(("value", "text"), [("a-1", "a-1"), (7, "7"), (2**80, str(2**80)), (" x ", " x ")])
def test_a_named_id_field_is_the_id(value, text):
    found = sample({"id": value, "text": "a"}, id_field="id")
    assert found.sample_id == text
    assert found.content_hash == sample({"id": value, "text": "a"}).content_hash


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "null"),
        ("", "empty"),
        ("  ", "empty"),
        (True, "bool"),
        (1.5, "float"),
        ([1], "list"),
        ("a\nb", "control"),
        ("a\x85b", "control"),
        ("x" * 513, "longer than 512"),
    ],
)
def test_a_value_that_is_no_id_is_refused(value, problem):
    with pytest.raises(InvalidInputError, match=f"'id' is {problem}|{problem}"):
        sample({"id": value, "text": "a"}, id_field="id")


def test_a_missing_id_field_suggests_a_near_one():
    with pytest.raises(InvalidInputError, match="no id field 'idd'") as caught:
        sample({"id": 1, "text": "a"}, id_field="idd")
    assert "'id'" in str(caught.value)


# ---- columns


def test_fields_that_cannot_be_columns_stay_in_the_record_only():
    record = {"text": "a", "Text": "b", "": 1, " ": 2, "n\x00": 3, "x" * 129: 4, "user_record": 5, "record": 6}
    found = sample(record)
    assert found.fields == {"text": "a", "user_record": 5}  # SQL would show "record" as user_record
    assert json.loads(found.record_json) == record


def test_at_most_256_fields_become_columns():
    found = sample({"text": "a"} | {f"f{i}": i for i in range(1000)})
    assert len(found.fields) == MAX_USER_FIELDS
