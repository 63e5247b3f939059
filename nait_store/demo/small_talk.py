"""Chit-chat: somebody tells something of everyday life, a friendly answer comes back."""

from __future__ import annotations

import random
from typing import NamedTuple

from nait_store.demo.vocabulary import DAYS, NAMES, PLACES, THINGS, Record


class Topic(NamedTuple):
    """What one talks about; slots are filled with the vocabulary that all domains share."""

    opening: tuple[str, ...]
    question: tuple[str, ...]
    advice: tuple[str, ...]


_TOPICS = (
    Topic(
        ("I slept only {n} hours and feel tired.", "I keep waking up at {n} in the morning.",
         "My week was far too long."),
        ("How can I get some rest?", "What would you do?", "Any idea how to feel better?"),
        ("Try to go to bed a little earlier tonight.", "A short walk often helps more than coffee.",
         "Put the phone away an hour before you sleep.", "Warm milk and a dull book work wonders."),
    ),
    Topic(
        ("My friend {name} has a birthday on {day}.", "{name} turns {n} next {day}.", "We plan a party for {name}."),
        ("What should I give as a present?", "Do you have an idea for a gift?", "What would make a nice surprise?"),
        ("A box of {things} with a card is always lovely.", "Something made by hand says more than money.",
         "You could invite everyone to the {place}.", "Ask what {name} has been dreaming of lately."),
    ),
    Topic(
        ("I am going to visit the {place} on {day}.", "We travel with {n} friends to the sea.",
         "I have never been abroad."),
        ("What should I take with me?", "Do you have any tips?", "How do I prepare?"),
        ("Comfortable shoes matter most.", "Keep your tickets where you can find them.",
         "Leave some time free for surprises.", "Learn to say thank you in the language of the place."),
    ),
    Topic(
        ("I would like to cook something for {n} people.", "My kitchen is small and I have only {things}.",
         "{name} comes to dinner on {day}."),
        ("What could I make?", "Can you suggest a dish?", "What goes well together?"),
        ("A big pot of soup keeps everybody happy.", "Fresh bread from the bakery makes any meal better.",
         "Roast some vegetables with oil and salt.", "Keep it simple and enjoy the evening with {name}."),
    ),
    Topic(
        ("I started to learn the guitar.", "I want to read more books this year.",
         "{name} taught me to dance on {day}."),
        ("How do I keep going?", "How can I stay with it?", "What helps when I lose interest?"),
        ("A little every day is better than a lot once a week.", "Find a friend to do it with you.",
         "Be kind to yourself when it goes slowly.", "Celebrate the small steps, they add up."),
    ),
    Topic(
        ("My cat hides under the bed.", "Our dog ate {n} {things} at the {place}.",
         "I may adopt {n} kittens from {name}."),
        ("Should I worry?", "Is that normal?", "What do you think about it?"),
        ("Animals need time to get used to new things.", "If it lasts more than a day, call the vet.",
         "A quiet corner and a soft blanket help.", "They surely bring a lot of joy, and some work."),
    ),
    Topic(
        ("It has rained since {day}.", "The sun is shining at last.", "It is cold and the {place} is closed."),
        ("What can I do this afternoon?", "How do you like the weather?", "Any plans for a day like this?"),
        ("A day indoors is perfect for tea and a film.", "Go outside for a while, fresh air lifts the mood.",
         "Call {name}, you have not talked for weeks.", "I always enjoy hearing the rain on the roof."),
    ),
    Topic(
        ("My boss moved the meeting to {day}.", "I lost my bag with {n} {things}.", "I argued with {name} yesterday."),
        ("What should I say?", "How do I stay calm?", "Can you cheer me up?"),
        ("Take a deep breath before you answer.", "Most things look smaller after a good night.",
         "Say honestly how you feel, and listen too.", "Perhaps somebody at the {place} can help you."),
    ),
)  # fmt: skip
_GREETINGS = ("Hello!", "Hi there.", "Good morning!", "Hey, how are you?", "Good evening.", "")
_SYMPATHY = (
    "That sounds like quite something!", "Oh, I know that feeling.", "How nice of you to ask.",
    "Thanks for telling me.",
    "I am glad you wrote.", "That happens to all of us.",
)  # fmt: skip
_LINKS = ("First of all,", "Besides,", "And then,", "Also,", "If you ask me,", "")
_CLOSINGS = ("Let me know how it goes!", "I hope that helps.", "Have a lovely day!", "Tell me more about it?", "")


def draw(rng: random.Random) -> Record:
    """Draw one exchange on one or two topics: greeting, openings, questions; sympathy, advice, a closing."""
    said, answer = [rng.choice(_GREETINGS)], [rng.choice(_SYMPATHY)]
    for topic in rng.sample(_TOPICS, rng.choice((1, 1, 2))):
        slots = {
            "n": rng.randint(2, 12),
            "name": rng.choice(NAMES),
            "day": rng.choice(DAYS),
            "things": rng.choice(THINGS),
            "place": rng.choice(PLACES),
        }
        asked = [*rng.sample(topic.opening, rng.randint(1, 3)), rng.choice(topic.question)]
        said += [part.format(**slots) for part in asked]
        answer += [
            _linked(rng.choice(_LINKS), advice.format(**slots))
            for advice in rng.sample(topic.advice, rng.randint(1, 4))
        ]
    answer.append(rng.choice(_CLOSINGS))
    instruction, output = (" ".join(part for part in parts if part) for parts in (said, answer))
    return Record(instruction=instruction, input="", output=output, domain="chat")


def _linked(link: str, advice: str) -> str:
    if not link:
        return advice
    return f"{link} {advice if advice.startswith('I ') else advice[0].lower() + advice[1:]}"
