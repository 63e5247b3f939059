"""Small Python tasks: write, explain or test a function."""

from __future__ import annotations

import random

from nait_store.demo.vocabulary import NAMES, THINGS, Record

# (words, condition) of the items that a loop keeps; {x} is the loop variable, {n} a small number.
_FILTERS = (
    ("even", "{x} % 2 == 0"),
    ("odd", "{x} % 2 == 1"),
    ("positive", "{x} > 0"),
    ("negative", "{x} < 0"),
    ("larger than {n}", "{x} > {n}"),
    ("smaller than {n}", "{x} < {n}"),
    ("divisible by {n}", "{x} % {n} == 0"),
)
_MAPS = (
    ("square", "{x} * {x}"),
    ("double", "2 * {x}"),
    ("absolute value", "abs({x})"),
    ("opposite", "-{x}"),
    ("successor", "{x} + 1"),
)
_STRING_MAPS = (
    ("in upper case", "{x}.upper()"),
    ("reversed", "{x}[::-1]"),
    ("without spaces", "{x}.strip()"),
    ("with its first letter only", "{x}[:1]"),
    ("with an exclamation mark", "{x} + '!'"),
)
_VARIABLES = ("x", "item", "value", "element", "entry", "n")
_SEQUENCES = ("values", "items", "numbers", "data", "elements", "xs")
_WORDS = ("words", "lines", "names", "strings", "texts")


def draw(rng: random.Random) -> Record:
    """Draw one task of four kinds: numbers in a list, strings in a list, counting in a dict, a small class."""
    kind = rng.choice((_number_function, _string_function, _counting_function, _small_class))
    task, code, remarks = kind(rng)
    explanation = " ".join(remarks[: rng.randint(0, len(remarks))])
    if rng.random() < 0.2:
        return Record(
            instruction=rng.choice(("Explain what this Python code does.", "Describe the following function.")),
            input=code,
            output=" ".join((f"The code is a solution of this task: {task}", *remarks)),
            domain="code",
        )
    lead = rng.choice(
        ("Write a Python function that {}", "In Python, write code that {}", "Implement this: code that {}")
    )
    output = code + (f"\n\n{explanation}" if explanation else "")
    return Record(instruction=lead.format(task), input="", output=output, domain="code")


def _number_function(rng: random.Random) -> tuple[str, str, list[str]]:
    x, xs, n = rng.choice(_VARIABLES), rng.choice(_SEQUENCES), rng.randint(2, 12)
    kept, condition = (part.format(x=x, n=n) for part in rng.choice(_FILTERS))
    word, expression = (part.format(x=x) for part in rng.choice(_MAPS))
    name = f"{rng.choice(('select', 'pick', 'collect', 'find'))}_{word.split()[0]}s"
    task = f"returns the {word} of every number that is {kept} in a list called {xs}."
    if rng.random() < 0.5:
        body = [f"    return [{expression} for {x} in {xs} if {condition}]"]
        how = f"A list comprehension walks over {xs} and keeps each {x} for which {condition} is true."
    else:
        body = [
            "    result = []",
            f"    for {x} in {xs}:",
            f"        if {condition}:",
            f"            result.append({expression})",
            "    return result",
        ]
        how = f"The loop walks over {xs}, tests {condition} and appends to the result."
    sample = [rng.randint(-9, 20) for _ in range(rng.randint(3, 6))]
    return task, _function(rng, name, xs, body, task), [how, f"Call it as {name}({sample}).", _remark(rng)]


def _string_function(rng: random.Random) -> tuple[str, str, list[str]]:
    x, xs = rng.choice(_VARIABLES[:-1]), rng.choice(_WORDS)
    word, expression = (part.format(x=x) for part in rng.choice(_STRING_MAPS))
    n = rng.randint(2, 9)
    name = f"{rng.choice(('change', 'convert', 'map'))}_{xs}"
    task = f"takes a list of {xs} and returns each one of more than {n} letters {word}."
    body = [f"    return [{expression} for {x} in {xs} if len({x}) > {n}]"]
    if rng.random() < 0.5:
        body = [f"    for {x} in {xs}:", f"        if len({x}) > {n}:", f"            yield {expression}"]
    given = rng.sample((*NAMES, *THINGS), rng.randint(2, 4))
    how = f"For every {x} the length is compared with {n}, and the others are left out."
    return task, _function(rng, name, xs, body, task), [how, f"Try it with {name}({given}).", _remark(rng)]


def _counting_function(rng: random.Random) -> tuple[str, str, list[str]]:
    x, xs, n = rng.choice(_VARIABLES), rng.choice(_SEQUENCES), rng.randint(1, 5)
    name = f"count_{xs}"
    task = f"counts how often each of the {xs} occurs and returns those seen more than {n} times."
    body = [
        "    counts = {}",
        f"    for {x} in {xs}:",
        f"        counts[{x}] = counts.get({x}, 0) + 1",
        f"    return {{key: total for key, total in counts.items() if total > {n}}}",
    ]
    how = f"The dictionary counts maps each {x} to the number of times it was seen; get returns 0 at first."
    return task, _function(rng, name, xs, body, task), [how, f"An empty list gives {name}([]) == {{}}.", _remark(rng)]


def _small_class(rng: random.Random) -> tuple[str, str, list[str]]:
    noun = rng.choice(("Stack", "Queue", "Counter", "Basket", "Register"))
    field, verb = rng.choice(_SEQUENCES), rng.choice(("add", "push", "append", "insert"))
    taken = rng.choice(("pop()", "pop(0)"))
    task = f"defines a class {noun} with the methods {verb}, take and size that keeps its {field} in a list."
    code = "\n".join([
        f"class {noun}:",
        "    def __init__(self):",
        f"        self.{field} = []",
        f"    def {verb}(self, item):",
        f"        self.{field}.append(item)",
        "    def take(self):",
        f"        return self.{field}.{taken}",
        "    def size(self):",
        f"        return len(self.{field})",
    ])  # fmt: skip
    how = f"The method take removes the {'last' if taken == 'pop()' else 'first'} item from self.{field}."
    return task, code, [how, _remark(rng)]


def _function(rng: random.Random, name: str, argument: str, body: list[str], task: str) -> str:
    lines = [f"def {name}({argument}):"]
    if rng.random() < 0.4:
        lines.append(f'    """This function {task}"""')
    return "\n".join(lines + body)


def _remark(rng: random.Random) -> str:
    return rng.choice((
        "It runs in linear time.",
        "The input list is not changed.",
        "An empty list returns an empty result.",
        "No import is needed.",
        "It raises a TypeError if the argument is None.",
    ))  # fmt: skip
