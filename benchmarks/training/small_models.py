"""Training of small causal language models: from scratch on whole texts, then on the answers of chosen records."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_BATCH = 16
_WARM_UP_STEPS = 10
_IGNORED = -100
_PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"


@dataclass(frozen=True)
class Shape:
    """Sizes of the model that is trained.

    Attributes
    ----------
    hidden, intermediate, n_layers, n_heads
        Of a Llama.
    max_tokens
        At which a text is cut.
    """

    hidden: int = 128
    intermediate: int = 384
    n_layers: int = 4
    n_heads: int = 4
    max_tokens: int = 256


@dataclass(frozen=True)
class Example:
    """A record's tokens.

    Attributes
    ----------
    tokens
        Prompt, answer and end of text.
    n_prompt
        How many of them are the prompt.
    """

    tokens: tuple[int, ...]
    n_prompt: int


class Examples:
    """Turns records into tokens.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.
    max_tokens
        At which a text is cut.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    def of(self, record: dict[str, Any]) -> Example:
        """Tokens of a record with ``instruction``, ``input`` and ``output``."""
        asked = "\n".join(filter(None, (record.get("instruction"), record.get("input"))))
        prompt = self._tokenizer.encode(_PROMPT.format(instruction=asked), add_special_tokens=False)
        answer = self._tokenizer.encode(str(record.get("output") or ""), add_special_tokens=False)
        end = self._tokenizer.eos_token_id
        tokens = [*prompt, *answer, *([] if end is None else [end])][: self._max_tokens]
        return Example(tuple(tokens), min(len(prompt), len(tokens) - 1))


def new_model(shape: Shape, tokenizer: Any, seed: int, device: str) -> Any:
    """Make a Llama with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=2 * shape.max_tokens,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModelForCausalLM.from_config(config).to(device)


def trained(model: Any, examples: Sequence[Example], *, epochs: int, rate: float, seed: int, answers_only: bool) -> Any:
    """Train a copy of a model.

    Parameters
    ----------
    model
        Stays as it is.
    examples
        Each goes in once an epoch, in an order that ``seed`` decides.
    epochs, rate
        Of AdamW, whose rate falls in a line to a tenth.
    seed
        Of the order.
    answers_only
        Whether the prompt's tokens are read, but not learnt.
    """
    import torch

    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.95))
    batches = [batch for epoch in range(epochs) for batch in _shuffled(examples, 1000 * seed + epoch)]
    for step, batch in enumerate(batches):
        share = step / max(1, len(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / _WARM_UP_STEPS) * (1 - 0.9 * share)
        loss = _losses(model, batch, answers_only).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def answer_loss(model: Any, examples: Sequence[Example]) -> float:
    """Mean cross entropy, in nats, of the answers' tokens given what comes before."""
    import torch

    ordered = sorted(examples, key=lambda example: len(example.tokens))
    total, n_tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(ordered), 2 * _BATCH):
            losses = _losses(model, ordered[start : start + 2 * _BATCH], answers_only=True)
            total += float(losses.double().sum())
            n_tokens += len(losses)
    return total / max(1, n_tokens)


def save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Save a model for ``nait-store ingest --model``."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _shuffled(examples: Sequence[Example], seed: int) -> Iterator[list[Example]]:
    """Batches of like length in random order, so that little is padding."""
    generator = np.random.default_rng(seed)
    jitter = generator.random(len(examples))
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens) + 16 * jitter[i])
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    for index in generator.permutation(len(batches)):
        yield [examples[i] for i in batches[index]]


def _losses(model: Any, batch: Sequence[Example], answers_only: bool) -> torch.Tensor:
    """Cross entropy of every token that counts, [n]."""
    import torch

    longest = max(len(example.tokens) for example in batch)
    tokens = torch.zeros((len(batch), longest), dtype=torch.int64)
    labels = torch.full((len(batch), longest), _IGNORED, dtype=torch.int64)
    for row, example in enumerate(batch):
        n = len(example.tokens)
        tokens[row, :n] = torch.tensor(example.tokens)
        first = max(1, example.n_prompt) if answers_only else 1
        labels[row, first:n] = tokens[row, first:n]
    wanted = labels[:, 1:] != _IGNORED
    # Padding is on the right, where a causal model's tokens do not look. Only what counts goes through the vocabulary.
    hidden = model.model(input_ids=tokens.to(model.device), use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[wanted.to(model.device)])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted].to(model.device), reduction="none")
