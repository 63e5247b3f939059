"""From samples to token spans: what is the sample's own and what is not."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_store.capture.conversations import make_sample
from nait_store.capture.readers import SourceRecord
from nait_store.capture.rendering import (
    PreparedSample,
    Renderer,
    UnpreparedSample,
    default_max_length_tokens,
)
from nait_store.capture.token_spans import content_intervals, tokens_within
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Span, SpanEdges
from nait_store.testing.tiny_tokenizers import CHATML_TEMPLATE, tiny_tokenizer

_spec = importlib.util.spec_from_file_location("texts", Path(__file__).parent / "chat_template_texts.py")
texts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(texts)


def sample(record):
    return make_sample(SourceRecord(record, "data.jsonl", 0, 1))


def chat(*turns):
    return sample({"messages": [{"role": role, "content": content} for role, content in turns]})


def alpaca(instruction, output, context=""):
    return sample({"instruction": instruction, "input": context, "output": output})


def prepare(record, tokenizer=None, **options):
    tokenizer = tokenizer or tiny_tokenizer()
    (prepared,) = Renderer(tokenizer, **options).prepare([record])
    return prepared


def own_texts(prepared, tokenizer):
    return [tokenizer.decode(prepared.token_ids[start:end]) for start, end in prepared.content]


def chat_tokenizer(template, **options):
    return tiny_tokenizer(chat_template=template, merges=False, **options)


# ---- templates


def test_plain_joins_turns_by_a_blank_line_and_leaves_it_out_of_the_span():
    tokenizer = tiny_tokenizer(merges=False)
    prepared = prepare(alpaca("Say a.", "a", context="quickly"), tokenizer, template="plain")
    assert tokenizer.decode(prepared.token_ids) == "Say a.\n\nquickly\n\na"
    assert own_texts(prepared, tokenizer) == ["Say a.", "quickly", "a"]
    assert prepared.n_content_tokens == 6 + 7 + 1


def test_alpaca_writes_the_known_prompt_with_and_without_input():
    tokenizer = tiny_tokenizer(merges=False)
    without = prepare(alpaca("Say a.", "a"), tokenizer, template="alpaca")
    assert tokenizer.decode(without.token_ids) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSay a.\n\n### Response:\na"
    )
    assert own_texts(without, tokenizer) == ["Say a.", "a"]
    with_input = prepare(alpaca("Say it.", "b", context="b"), tokenizer, template="alpaca")
    assert tokenizer.decode(with_input.token_ids) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSay it.\n\n### Input:\nb\n\n### Response:\nb"
    )
    assert own_texts(with_input, tokenizer) == ["Say it.", "b", "b"]


def test_an_alpaca_conversation_keeps_its_system_and_later_turns():
    tokenizer = tiny_tokenizer(merges=False)
    record = chat(("system", "Be brief."), ("user", "q1"), ("assistant", "a1"), ("tool", "t"), ("user", "q2"))
    prepared = prepare(record, tokenizer, template="alpaca")
    assert tokenizer.decode(prepared.token_ids) == (
        "Be brief.\n\n### Instruction:\nq1\n\n### Response:\na1\n\n### Tool:\nt\n\n"
        "### Instruction:\nq2\n\n### Response:\n"
    )
    assert own_texts(prepared, tokenizer) == ["Be brief.", "q1", "a1", "t", "q2"]


def test_auto_is_the_chat_template_where_there_is_one_else_plain():
    assert Renderer(tiny_tokenizer()).policy.name == "plain"
    assert Renderer(tiny_tokenizer(chat_template=CHATML_TEMPLATE)).policy.name == "chat"


def test_policies_differ_by_name_and_text():
    policies = {Renderer(tiny_tokenizer(), template=name).policy for name in ("plain", "alpaca")}
    policies |= {Renderer(chat_tokenizer(text)).policy for text in (CHATML_TEMPLATE, texts.DATED)}
    assert len({policy.sha256 for policy in policies}) == 4


def test_chat_without_a_template_is_refused():
    with pytest.raises(InvalidInputError, match="no chat template") as caught:
        Renderer(tiny_tokenizer(), template="chat")
    assert "--template" in str(caught.value)


def test_an_unknown_policy_is_refused():
    with pytest.raises(InvalidInputError, match="'chatt'") as caught:
        Renderer(tiny_tokenizer(), template="chatt")
    assert "'chat'" in str(caught.value)


# ---- chat templates


def test_a_chat_templates_scaffolding_and_special_tokens_are_left_out():
    tokenizer = chat_tokenizer(CHATML_TEMPLATE)
    prepared = prepare(chat(("user", "user"), ("assistant", "assistant"), ("user", "user")), tokenizer)
    assert own_texts(prepared, tokenizer) == ["user", "assistant", "user"]
    assert [start for start, _ in prepared.content] == [6, 23, 40]  # after "<|im_start|>user\n" etc.


def test_a_template_that_trims_gives_the_trimmed_text():
    tokenizer = chat_tokenizer(texts.LLAMA2)
    prepared = prepare(chat(("user", "  hello \n"), ("assistant", "\n hi ")), tokenizer)
    assert own_texts(prepared, tokenizer) == ["hello", "hi"]


def test_the_begin_token_is_not_doubled():
    tokenizer = chat_tokenizer(texts.LLAMA2, add_bos=True)
    prepared = prepare(chat(("user", "hello"), ("assistant", "hi")), tokenizer)
    assert list(prepared.token_ids).count(tokenizer.bos_token_id) == 1
    plain = prepare(sample({"text": "hello"}), tokenizer, template="plain")
    assert list(plain.token_ids).count(tokenizer.bos_token_id) == 1
    assert own_texts(plain, tokenizer) == ["hello"]


def test_a_system_turn_that_the_template_refuses_goes_before_the_first_question():
    tokenizer = chat_tokenizer(texts.LLAMA2)
    prepared = prepare(chat(("system", "Be brief."), ("user", "q"), ("assistant", "a")), tokenizer)
    assert tokenizer.decode(prepared.token_ids) == "<s>[INST] Be brief.\n\nq [/INST] a </s>"
    assert own_texts(prepared, tokenizer) == ["Be brief.\n\nq", "a"]


def test_a_conversation_that_the_template_refuses_is_unprepared_with_its_reason():
    prepared = prepare(chat(("user", "q"), ("tool", "t")), chat_tokenizer(texts.LLAMA2))
    assert isinstance(prepared, UnpreparedSample)
    assert "only user and assistant" in prepared.reason
    assert (prepared.source_uri, prepared.source_index) == ("data.jsonl", 0)


def test_a_system_prompt_of_the_templates_own_is_not_content():
    tokenizer = chat_tokenizer(texts.DEFAULT_SYSTEM)
    prepared = prepare(chat(("user", "You are"), ("assistant", "a helpful assistant")), tokenizer)
    assert "You are a helpful assistant." in tokenizer.decode(prepared.token_ids)
    assert own_texts(prepared, tokenizer) == ["You are", "a helpful assistant"]
    assert prepared.content[0][0] > tokenizer.decode(prepared.token_ids).index("assistant.") - 24


def test_what_a_template_drops_from_a_turn_is_not_content():
    tokenizer = chat_tokenizer(texts.DROPS_THINKING)
    record = chat(
        ("user", "q1"), ("assistant", "<think>long thought</think>\n\nanswer one"), ("user", "q2"), ("assistant", "two")
    )
    assert own_texts(prepare(record, tokenizer), tokenizer) == ["q1", "answer one", "q2", "two"]


def test_reasoning_that_the_template_sets_anew_leaves_the_answers_findable():
    tokenizer = chat_tokenizer(texts.RESETS_THINKING)
    record = chat(
        ("user", "q1"),
        ("assistant", "<think>one</think>\n\nfirst"),
        ("user", "q2"),
        ("assistant", "<think>two</think>last"),
    )
    assert own_texts(prepare(record, tokenizer), tokenizer) == ["q1", "first", "q2", "last"]


def test_a_mask_says_where_rewritten_answers_are():
    tokenizer = chat_tokenizer(texts.MASKED_SHOUT)
    prepared = prepare(chat(("user", "q"), ("assistant", "loud"), ("user", "r"), ("assistant", "er")), tokenizer)
    assert own_texts(prepared, tokenizer) == ["q", "LOUD", "r", "ER"]


def test_without_a_mask_a_rewritten_answer_is_not_guessed():
    tokenizer = chat_tokenizer(texts.SHOUT)
    prepared = prepare(chat(("user", "q"), ("assistant", "loud")), tokenizer)
    assert own_texts(prepared, tokenizer) == ["q"]
    prepared = prepare(chat(("user", "q"), ("assistant", "loud")), tokenizer, span=Span.RESPONSE)
    assert isinstance(prepared, UnpreparedSample)


def test_a_mask_that_covers_the_turns_end_does_not_widen_the_span():
    tokenizer = chat_tokenizer(texts.MASKED)
    prepared = prepare(chat(("user", "q"), ("assistant", "answer")), tokenizer, span=Span.RESPONSE)
    assert own_texts(prepared, tokenizer) == ["answer"]


def test_a_turn_that_the_template_drops_gives_no_span():
    tokenizer = chat_tokenizer(texts.LAST_ONLY)
    prepared = prepare(chat(("user", "first"), ("assistant", "last")), tokenizer)
    assert own_texts(prepared, tokenizer) == ["last"]


def test_scaffolding_that_depends_on_the_contents_is_searched_in_order():
    tokenizer = chat_tokenizer(texts.COUNTS)
    prepared = prepare(chat(("user", "one"), ("assistant", "two"), ("user", "one")), tokenizer)
    assert own_texts(prepared, tokenizer) == ["one", "two", "one"]
    starts = [start for start, _ in prepared.content]
    assert starts == sorted(set(starts))


def test_turns_that_a_template_writes_out_of_order_are_found():
    tokenizer = chat_tokenizer(texts.SYSTEM_LATE)
    prepared = prepare(chat(("system", "be"), ("user", "one"), ("assistant", "two"), ("user", "three")), tokenizer)
    assert own_texts(prepared, tokenizer) == ["one", "two", "be", "three"]


def test_a_template_with_todays_date_renders_alike_on_every_day():
    tokenizer = chat_tokenizer(texts.DATED)
    prepared = prepare(chat(("user", "q")), tokenizer)
    assert tokenizer.decode(prepared.token_ids).startswith("Today is 26 Jul 2024.")


def test_bare_text_is_itself_under_a_chat_template():
    tokenizer = chat_tokenizer(CHATML_TEMPLATE, add_bos=True)
    prepared = prepare(sample({"text": "Once upon"}), tokenizer)
    assert tokenizer.decode(prepared.token_ids) == "<s>Once upon"
    assert own_texts(prepared, tokenizer) == ["Once upon"]


def test_a_broken_template_refuses_every_sample_with_its_reason():
    prepared = prepare(chat(("user", "q")), chat_tokenizer("{% for %}"))
    assert isinstance(prepared, UnpreparedSample)
    assert "template" in prepared.reason


# ---- spans


def test_response_takes_the_assistants_turns_only():
    tokenizer = chat_tokenizer(CHATML_TEMPLATE)
    record = chat(("system", "s"), ("user", "q"), ("assistant", "a1"), ("tool", "t"), ("assistant", "a2"))
    assert own_texts(prepare(record, tokenizer, span=Span.RESPONSE), tokenizer) == ["a1", "a2"]


@pytest.mark.parametrize("record", [{"text": "a"}, {"instruction": "a", "output": ""}])
def test_response_of_a_sample_without_an_answer_is_unprepared(record):
    prepared = prepare(sample(record), span=Span.RESPONSE)
    assert isinstance(prepared, UnpreparedSample)
    assert "assistant" in prepared.reason


def test_rendered_edges_take_every_token():
    tokenizer = chat_tokenizer(CHATML_TEMPLATE)
    prepared = prepare(chat(("user", "q")), tokenizer, span_edges=SpanEdges.RENDERED)
    assert prepared.content == ((0, len(prepared.token_ids)),)
    assert prepared.n_content_tokens == prepared.n_tokens


def test_rendered_edges_of_responses_are_refused():
    with pytest.raises(InvalidInputError, match="no rendered edges"):
        Renderer(tiny_tokenizer(), span=Span.RESPONSE, span_edges=SpanEdges.RENDERED)


def test_special_tokens_written_in_a_text_are_not_content():
    tokenizer = tiny_tokenizer(merges=False)
    prepared = prepare(sample({"text": "ab</s>c"}), tokenizer)
    assert own_texts(prepared, tokenizer) == ["ab", "c"]


def test_a_token_that_straddles_text_and_scaffolding_counts():
    tokenizer = tiny_tokenizer(chat_template="{% for m in messages %}={% endfor %} {{ messages[0]['content'] }}!")
    prepared = prepare(chat(("user", "the")), tokenizer)  # " the" is one token
    assert own_texts(prepared, tokenizer) == [" the"]


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_white_space_tokens_within_a_text_count_even_without_offsets(trim_offsets):
    tokenizer = tiny_tokenizer(merges=False, trim_offsets=trim_offsets)
    prepared = prepare(sample({"text": "a   b"}), tokenizer)
    assert prepared.content == ((0, 5),)


def test_truncation_cuts_on_the_right_and_is_flagged():
    tokenizer = tiny_tokenizer(merges=False)
    record = alpaca("question", "answer")
    prepared = prepare(record, tokenizer, max_length_tokens=12)
    assert prepared.truncated
    assert tokenizer.decode(prepared.token_ids) == "question\n\nan"
    assert own_texts(prepared, tokenizer) == ["question", "an"]
    assert not prepare(record, tokenizer, max_length_tokens=16).truncated


def test_a_span_that_truncation_empties_is_unprepared_with_the_limit():
    prepared = prepare(
        alpaca("question", "answer"), tiny_tokenizer(merges=False), max_length_tokens=10, span=Span.RESPONSE
    )
    assert isinstance(prepared, UnpreparedSample)
    assert "first 10 tokens" in prepared.reason


def test_a_very_long_text_is_cut_before_it_is_tokenised_without_a_trace():
    tokenizer = tiny_tokenizer()
    text = "what is the sum of many numbers é? " * 20_000
    prepared = prepare(sample({"text": text}), tokenizer, max_length_tokens=100)
    whole = tokenizer(text, verbose=False)["input_ids"][:100]
    assert prepared.token_ids.tolist() == whole
    assert prepared.truncated


def test_a_very_long_text_of_few_tokens_is_tokenised_whole():
    tokenizer = tiny_tokenizer(chat_template=None)
    text = "a" * 40 + "</s>" * 2_000  # 4 characters a token, yet within 32 times the limit only 300 of them
    (prepared,) = Renderer(tokenizer, max_length_tokens=2_100).prepare([sample({"text": text})])
    assert len(prepared.token_ids) == 2_040
    assert not prepared.truncated


def test_a_token_beyond_the_models_embeddings_is_unprepared():
    prepared = prepare(sample({"text": "abc"}), vocabulary_size=10)
    assert isinstance(prepared, UnpreparedSample)
    assert "embeddings" in prepared.reason


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(InvalidInputError, match="leaves nothing"):
        Renderer(tiny_tokenizer(), max_length_tokens=limit)


def sentencepiece_like_tokenizer():
    """Marks word beginnings, puts one in front of every text, and spells unknown characters in bytes (Llama 2)."""
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    backend = Tokenizer(BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_with_byte_fallback_gives_whole_characters():
    tokenizer = sentencepiece_like_tokenizer()
    prepared = prepare(alpaca("add é 漢🙂", "two é"), tokenizer, template="alpaca")
    assert [text.strip() for text in own_texts(prepared, tokenizer)] == ["add é 漢🙂", "two é"]


class SlowTokenizer:
    """A tokenizer without offsets, as those written in Python are."""

    is_fast = False
    chat_template = None
    all_special_ids = (0,)

    def __call__(self, batch, **options):
        assert not options["return_offsets_mapping"]
        return {"input_ids": [list(text.encode()) for text in batch]}


def test_a_slow_tokenizer_is_refused_unless_offsets_are_not_needed():
    with pytest.raises(InvalidInputError, match="no character offsets"):
        Renderer(SlowTokenizer())
    (prepared,) = Renderer(SlowTokenizer(), span_edges=SpanEdges.RENDERED).prepare([sample({"text": "abc"})])
    assert prepared.token_ids.tolist() == [97, 98, 99]


def test_samples_keep_their_order_whatever_becomes_of_them():
    tokenizer = chat_tokenizer(texts.LLAMA2)
    records = [
        chat(("user", "one"), ("assistant", "1")),
        sample({"text": "two"}),
        chat(("tool", "three")),
        chat(("user", "four"), ("assistant", "4")),
    ]
    found = Renderer(tokenizer).prepare(records * 700)
    assert [item.sample for item in found] == records * 700
    assert [type(item) for item in found[:4]] == [PreparedSample, PreparedSample, UnpreparedSample, PreparedSample]


def test_a_row_says_how_the_sample_was_captured():
    prepared = prepare(alpaca("ab", "c"), tiny_tokenizer(merges=False), max_length_tokens=4)
    row = prepared.row()
    assert (row.n_tokens, row.n_content_tokens, row.truncated) == (4, 2, True)
    assert row.sample_id == prepared.sample.sample_id
    assert row.record == prepared.sample.record_json
    assert row.fields == {"instruction": "ab", "input": "", "output": "c"}
    assert prepared.token_ids.dtype == np.int32


@pytest.mark.parametrize(("positions", "limit"), [(None, 2048), (512, 512), (8192, 2048)])
def test_the_default_limit_is_2048_or_the_models(positions, limit):
    assert default_max_length_tokens(positions) == limit


# ---- properties

words = st.text(
    st.sampled_from("ab the\n\t #:{}é漢🙂user<|>[]/INST") | st.characters(exclude_categories=["Cs"]), max_size=20
)
TEMPLATES = {
    "plain": None,
    "alpaca": None,
    "chatml": CHATML_TEMPLATE,
    "llama2": texts.LLAMA2,
    "system": texts.DEFAULT_SYSTEM,
    "masked": texts.MASKED,
    "counts": texts.COUNTS,
}


@pytest.mark.parametrize("trim_offsets", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=25, deadline=None)
@given(contents=st.lists(st.tuples(words, words), min_size=1, max_size=3))
def test_the_span_decodes_to_the_turns_own_text(name, trim_offsets, contents):
    turns = [turn for ask, answer in contents for turn in (("user", "q" + ask), ("assistant", "a" + answer))]
    template = TEMPLATES[name]
    tokenizer = tiny_tokenizer(chat_template=template, add_bos=True, trim_offsets=trim_offsets)
    (prepared,) = Renderer(tokenizer, template="auto" if template else name, max_length_tokens=10_000).prepare(
        [chat(*turns)]
    )
    special = set(tokenizer.all_special_ids)
    mask = np.zeros(len(prepared.token_ids), dtype=bool)
    for start, end in prepared.content:
        assert 0 <= start < end <= len(mask)
        assert not mask[start:end].any()
        mask[start:end] = True
    assert prepared.n_content_tokens == mask.sum()
    assert not set(prepared.token_ids[mask].tolist()) & special
    own = tokenizer.decode(prepared.token_ids[mask])
    at = 0
    for _, content in turns:
        text = content.strip() if name == "llama2" else content
        for token in sorted(tokenizer.all_special_tokens, key=len, reverse=True):
            text = text.replace(token, "")
        found = own.find(text, at)
        assert found >= 0
        at = found + len(text)


@given(st.data())
def test_tokens_within_ranges_agree_with_a_plain_loop(data):
    cuts = sorted(data.draw(st.sets(st.integers(0, 30), min_size=2, max_size=12)))
    tokens = [(start, data.draw(st.integers(start + 1, end))) for start, end in pairwise(cuts)]
    edges = sorted(data.draw(st.sets(st.integers(0, 30), max_size=8)))
    ranges = list(zip(edges[::2], edges[1::2], strict=False))
    expected = [any(start < high and end > low for low, high in ranges) for start, end in tokens]
    found = tokens_within(np.array(tokens).reshape(-1, 2), np.array(ranges, dtype=np.int64).reshape(-1, 2))
    assert found.tolist() == expected


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 4), max_size=8), st.sets(st.integers(0, 9), max_size=6), st.just(None)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 9),
)
def test_intervals_of_many_samples_agree_with_one_at_a_time(samples, limit):
    ids = [list(tokens) for tokens, _, _ in samples]
    offsets = [[(i, i + 1) for i in range(len(tokens))] for tokens in ids]
    ranges = []
    for _, edges, _ in samples:
        ordered = sorted(edges)
        ranges.append(list(zip(ordered[::2], ordered[1::2], strict=False)))
    found = content_intervals(ids, offsets, ranges, special_ids=frozenset({0}), max_length_tokens=limit)
    for tokens, own, intervals in zip(ids, ranges, found, strict=True):
        counted = {
            i
            for i, token in enumerate(tokens)
            if i < limit and token != 0 and any(low <= i < high for low, high in own)
        }
        assert {i for start, end in intervals for i in range(start, end)} == counted
        assert all(end < following for (_, end), (following, _) in pairwise(intervals))
