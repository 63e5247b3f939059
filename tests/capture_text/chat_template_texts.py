"""Chat templates after the habits of well-known models, written for these tests."""

LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
"""Trims contents, writes the begin token itself, refuses system turns."""

DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
"""Adds a system prompt of its own."""

DROPS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
)
"""Leaves the reasoning out of all answers but the last."""

RESETS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% set parts = m['content'].split('</think>') %}"
    "{% if loop.last %}<think>\n{{ parts[0].split('<think>')[-1] if parts | length > 1 }}\n</think>\n\n{% endif %}"
    "{{ parts[-1].strip() }}{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
)
"""Leaves the reasoning out of all answers but the last, where it is written in the template's own way."""

MASKED_SHOUT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] | upper }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}"
)
"""Rewrites answers, but says by a mask where they are."""

SHOUT = MASKED_SHOUT.replace("{% generation %}", "").replace("{% endgeneration %}", "")

MASKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
)
"""Its mask covers the end of the turn too, which is not the sample's own text."""

DATED = (
    "Today is {{ strftime_now('%d %b %Y') }}.\n"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
LAST_ONLY = "{{ messages[-1]['role'] }}: {{ messages[-1]['content'] }}"
"""Drops all turns but the last."""

COUNTS = (
    "{{ messages | map(attribute='content') | map('length') | sum }} characters\n"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
"""Its scaffolding depends on the contents, and no rendering is a prefix of a longer one."""

SYSTEM_LATE = (
    "{% for m in messages if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
    "{% if loop.last and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }} / {% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
"""Writes the system turn into the last one, out of order."""
