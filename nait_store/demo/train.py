"""Train the demonstration's tokenizer and model, and draw its data: everything that ships beside this file.

``python -m nait_store.demo.train`` remakes ``model/`` and ``data/`` in place; a few minutes on one core.
It is run by hand when the data's grammar changes, never by the demonstration itself.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from nait_store.demo import files
from nait_store.demo.generate import pool_and_in_domain, text_of, training_records, write_compressed
from nait_store.demo.vocabulary import Record

SPECIAL_TOKENS = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY_SIZE = 2048
SEQUENCE_TOKENS = 128
BATCH_SEQUENCES = 8
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 40


def train_tokenizer(records: Sequence[Record]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with a chat template; it adds no special tokens by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text_of(record) for record in records), trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def token_counter(tokenizer: Tokenizer) -> Callable[[Sequence[str]], list[int]]:
    """Return a function that counts the tokens of texts."""
    return lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


def render(record: Record) -> str:
    """Spell a record as the chat template does."""
    asked = "\n".join(part for part in (record["instruction"], record["input"]) if part)
    return f"<|user|>{asked}<|end|><|assistant|>{record['output']}<|end|>"


def new_model() -> LlamaForCausalLM:
    """Make an untrained Llama of 0.85 M parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=SPECIAL_TOKENS.index("<|end|>"),
            pad_token_id=SPECIAL_TOKENS.index("<|pad|>"),
        )
    )


def train_model(stream: torch.Tensor, steps: int, seed: int) -> LlamaForCausalLM:
    """Train on a stream of token ids, [n] int64, by next-token prediction; prints the loss as it falls."""
    torch.manual_seed(seed)
    model = new_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    began = time.monotonic()
    for step in range(steps):
        warm = min(1.0, (step + 1) / WARMUP_STEPS)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        starts = torch.randint(len(stream) - SEQUENCE_TOKENS, (BATCH_SEQUENCES,))
        batch = torch.stack([stream[start : start + SEQUENCE_TOKENS] for start in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True)
    return model.eval()


def main() -> None:
    """Train and write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=files.FOLDER, help="folder for model/ and data/")
    parser.add_argument("--steps", type=int, default=500, help="training steps of 1,024 tokens")
    parser.add_argument("--records", type=int, default=24_000, help="records to train on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    records = training_records(arguments.records, arguments.seed)
    tokenizer = train_tokenizer(records)
    stream = torch.tensor([i for ids in tokenizer([render(record) for record in records]).input_ids for i in ids])
    print(f"{len(records):,} records, {len(stream):,} tokens")
    model = train_model(stream, arguments.steps, arguments.seed)

    folder = arguments.out / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pool, in_domain = pool_and_in_domain(token_counter(tokenizer.backend_tokenizer), arguments.seed)
    write_compressed(pool, arguments.out / "data" / "pool.jsonl.gz")
    write_compressed(in_domain, arguments.out / "data" / "maths.jsonl.gz")
    for path in files.shipped_files() if arguments.out == files.FOLDER else []:
        print(f"{path.stat().st_size:>9,} bytes  {path.name}")


if __name__ == "__main__":
    main()
