"""Arithmetic word problems with answers worked out step by step."""

from __future__ import annotations

import random
from collections.abc import Callable

from nait_store.demo.vocabulary import DAYS, NAMES, PLACES, THINGS, Record

_ENDINGS = (
    "The answer is {}.",
    "The answer is {}",
    "So the answer is {}.",
    "Answer: {}",
    "Result: {}",
    "That makes {}!",
)


def draw(rng: random.Random) -> Record:
    """Draw one problem: a chain of events, or one of the classic forms."""
    forms: tuple[Callable[[random.Random], tuple[str, str, str]], ...] = (
        _shopping,
        _sharing,
        _journey,
        _saving,
        _discount,
    )
    question, steps, result = _chain(rng) if rng.random() < 0.55 else rng.choice(forms)(rng)
    answer = f"{steps} {rng.choice(_ENDINGS).format(result)}"
    if rng.random() < 0.3:
        lead = rng.choice(("Solve the problem step by step.", "Work this out.", "Answer the following question."))
        return Record(instruction=lead, input=question, output=answer, domain="maths")
    return Record(instruction=question, input="", output=answer, domain="maths")


def _chain(rng: random.Random) -> tuple[str, str, str]:
    name, things, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    count = rng.randint(8, 60)
    story = [f"{name} has {count} {things}."]
    steps = [f"{name} starts with {count} {things}."]
    for day in rng.sample(DAYS, rng.randint(1, 5)):
        amount = rng.randint(2, 20)
        event = rng.choice(("gain", "lose", "times") if count < 60 else ("gain", "lose"))
        if event == "lose" and amount < count:
            verb, shown = rng.choice((("gives away", "gives"), ("loses", "loses"), ("sells", "sells")))
            story.append(f"On {day} {name} {verb} {amount} {things}.")
            steps.append(f"On {day} {name} {shown} {amount}, so {count} - {amount} = {count - amount} are left.")
            count -= amount
        elif event == "times":
            factor = rng.randint(2, 4)
            story.append(f"On {day} the number of {things} grows to {factor} times what it was.")
            steps.append(f"On {day} it is multiplied: {count} * {factor} = {count * factor}.")
            count *= factor
        else:
            story.append(f"On {day} {name} {rng.choice(('buys', 'finds', 'gets'))} {amount} more at the {place}.")
            steps.append(f"On {day} the sum is {count} + {amount} = {count + amount}.")
            count += amount
    story.append(f"How many {things} does {name} have in the end?")
    return " ".join(story), " ".join(steps), str(count)


def _shopping(rng: random.Random) -> tuple[str, str, str]:
    name, (first, second) = rng.choice(NAMES), rng.sample(THINGS, 2)
    n, price, m, other = rng.randint(2, 12), rng.randint(2, 9), rng.randint(2, 12), rng.randint(2, 9)
    paid, more = n * price, m * other
    total = paid + more
    note = (total // 50 + 1) * 50
    question = (
        f"{name} buys {n} {first} for {price} dollars each and {m} {second} for {other} dollars each at the "
        f"{rng.choice(PLACES)}. {name} pays with {note} dollars. How much change does {name} get?"
    )
    answer = (
        f"The {first} cost {n} * {price} = {paid} dollars. The {second} cost {m} * {other} = {more} dollars. "
        f"Together that is {paid} + {more} = {total} dollars. The change is {note} - {total} = {note - total} dollars."
    )
    return question, answer, f"{note - total}"


def _sharing(rng: random.Random) -> tuple[str, str, str]:
    things, friends, each, rest = rng.choice(THINGS), rng.randint(3, 9), rng.randint(3, 15), rng.randint(0, 2)
    total = friends * each + rest
    names = rng.sample(NAMES, 2)
    question = (
        f"{names[0]} and {names[1]} share {total} {things} equally among {friends} friends. "
        f"How many {things} does each friend get, and how many are left over?"
    )
    answer = (
        f"We divide {total} by {friends}. Since {friends} * {each} = {friends * each}, each friend gets {each} "
        f"{things}. What is left over is {total} - {friends * each} = {rest}."
    )
    return question, answer, f"{each} each and {rest} left over"


def _journey(rng: random.Random) -> tuple[str, str, str]:
    name, speed, hours = rng.choice(NAMES), rng.randrange(20, 100, 5), rng.randint(2, 7)
    slower, longer = rng.randrange(10, 60, 5), rng.randint(1, 5)
    question = (
        f"{name} drives for {hours} hours at {speed} km per hour and then for {longer} hours at {slower} km per hour. "
        "How far is the journey in all?"
    )
    answer = (
        f"The first part is {hours} * {speed} = {hours * speed} km. The second part is {longer} * {slower} = "
        f"{longer * slower} km. Together that is {hours * speed} + {longer * slower} = "
        f"{hours * speed + longer * slower} km."
    )
    return question, answer, f"{hours * speed + longer * slower}"


def _saving(rng: random.Random) -> tuple[str, str, str]:
    name, weekly, weeks, start = rng.choice(NAMES), rng.randint(3, 25), rng.randint(3, 20), rng.randint(5, 80)
    spent = rng.randint(2, 30)
    question = (
        f"{name} has {start} dollars and saves {weekly} dollars every week. After {weeks} weeks {name} spends {spent} "
        f"dollars on {rng.choice(THINGS)}. How much money is left?"
    )
    end = start + weekly * weeks - spent
    answer = (
        f"In {weeks} weeks {name} saves {weekly} * {weeks} = {weekly * weeks} dollars. With the first {start} dollars "
        f"that is {start} + {weekly * weeks} = {start + weekly * weeks} dollars. After spending {spent}, "
        f"{start + weekly * weeks} - {spent} = {end} dollars are left."
    )
    return question, answer, f"{end}"


def _discount(rng: random.Random) -> tuple[str, str, str]:
    things, price, percent = rng.choice(THINGS), rng.randrange(20, 200, 10), rng.choice((10, 20, 30, 50))
    off = price * percent // 100
    question = (
        f"A box of {things} costs {price} dollars. On {rng.choice(DAYS)} the shop takes {percent} percent off. "
        "What is the new price?"
    )
    answer = (
        f"{percent} percent of {price} is {price} * {percent} / 100 = {off} dollars. "
        f"The new price is {price} - {off} = {price - off} dollars."
    )
    return question, answer, f"{price - off}"
