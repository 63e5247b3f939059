"""Tiny fast tokenizers made in memory, for tests that must not read a checkpoint."""

from __future__ import annotations

from functools import cache
from typing import Any

BOS_TOKEN, EOS_TOKEN, PAD_TOKEN = "<s>", "</s>", "<pad>"
_SPECIAL_TOKENS = [BOS_TOKEN, EOS_TOKEN, PAD_TOKEN, "<|im_start|>", "<|im_end|>"]

CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
"""The plainest chat template: every turn between two special tokens, its text as it is."""

_MERGE_CORPUS = (
    *("the", "add", "of", "number", "and", "is", "to", "in", "what", "how", "many", "write"),
    *("function", "return", "sum", "answer", "question", "word"),
)


def tiny_tokenizer(
    *,
    chat_template: str | None = None,
    add_bos: bool = False,
    add_eos: bool = False,
    merges: bool = True,
    trim_offsets: bool = False,
) -> Any:
    """Make a byte-level BPE tokenizer: 5 special tokens, the 256 bytes, and a few merges.

    Parameters
    ----------
    chat_template
        Jinja text of a chat template, e.g. :data:`CHATML_TEMPLATE`; none by default.
    add_bos, add_eos
        Whether encoding adds ``<s>`` in front and ``</s>`` at the end.
    merges
        Whether common words (with their leading space) become single tokens; otherwise one token a byte.
    trim_offsets
        Whether the offsets of a token leave out its leading space, as GPT-2's do.

    Returns
    -------
    PreTrainedTokenizerFast
        A fast tokenizer with fewer than 512 tokens; ``<s>`` is 0, ``</s>`` 1, ``<pad>`` 2.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    vocabulary, merge_list = _byte_vocabulary(merges)
    backend = Tokenizer(BPE(vocab=dict(vocabulary), merges=list(merge_list)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(_SPECIAL_TOKENS)
    around = f"{BOS_TOKEN} $A" if add_bos else "$A"
    around += f" {EOS_TOKEN}" if add_eos else ""
    steps: list[Any] = [processors.ByteLevel(trim_offsets=trim_offsets)]
    if add_bos or add_eos:
        steps.append(processors.TemplateProcessing(single=around, special_tokens=[(BOS_TOKEN, 0), (EOS_TOKEN, 1)]))
    backend.post_processor = processors.Sequence(steps)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS_TOKEN, eos_token=EOS_TOKEN, pad_token=PAD_TOKEN
    )
    tokenizer.chat_template = chat_template
    return tokenizer


@cache
def _byte_vocabulary(merges: bool) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, str], ...]]:
    """Vocabulary and merges: special tokens, bytes in order of their printable stand-ins, then merged words."""
    from tokenizers import pre_tokenizers

    names = _SPECIAL_TOKENS + sorted(pre_tokenizers.ByteLevel.alphabet())
    merge_list: list[tuple[str, str]] = []
    if merges:
        for word in _MERGE_CORPUS:
            whole = "Ġ"
            for letter in word:
                merge = (whole, letter)
                if merge not in merge_list:
                    merge_list.append(merge)
                    names.append(whole + letter)
                whole += letter
    return tuple((name, number) for number, name in enumerate(names)), tuple(merge_list)
