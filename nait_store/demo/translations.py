"""Translation pairs from a phrase grammar: English with French, Spanish or German."""

from __future__ import annotations

import random
from typing import NamedTuple

from nait_store.demo.vocabulary import NAMES, Record


class Phrase(NamedTuple):
    """The same phrase in four languages."""

    english: str
    french: str
    spanish: str
    german: str


_SUBJECTS = (
    Phrase("the cat", "le chat", "el gato", "die Katze"),
    Phrase("the old dog", "le vieux chien", "el perro viejo", "der alte Hund"),
    Phrase("my sister", "ma sœur", "mi hermana", "meine Schwester"),
    Phrase("my brother", "mon frère", "mi hermano", "mein Bruder"),
    Phrase("the teacher", "la professeure", "la profesora", "die Lehrerin"),
    Phrase("the doctor", "le médecin", "el médico", "der Arzt"),
    Phrase("our neighbour", "notre voisin", "nuestro vecino", "unser Nachbar"),
    Phrase("the child", "l'enfant", "el niño", "das Kind"),
    Phrase("a tourist", "un touriste", "un turista", "ein Tourist"),
    Phrase("the little girl", "la petite fille", "la niña pequeña", "das kleine Mädchen"),
    Phrase("the baker", "le boulanger", "el panadero", "der Bäcker"),
    Phrase("her friend", "son amie", "su amiga", "ihre Freundin"),
)
_VERBS = (
    Phrase("sleeps", "dort", "duerme", "schläft"),
    Phrase("works", "travaille", "trabaja", "arbeitet"),
    Phrase("sings", "chante", "canta", "singt"),
    Phrase("waits", "attend", "espera", "wartet"),
    Phrase("reads", "lit", "lee", "liest"),
    Phrase("eats", "mange", "come", "isst"),
    Phrase("plays", "joue", "juega", "spielt"),
    Phrase("laughs", "rit", "ríe", "lacht"),
    Phrase("dances", "danse", "baila", "tanzt"),
    Phrase("writes", "écrit", "escribe", "schreibt"),
    Phrase("paints", "peint", "pinta", "malt"),
    Phrase("studies", "étudie", "estudia", "lernt"),
)
_PLACES = (
    Phrase("in the garden", "dans le jardin", "en el jardín", "im Garten"),
    Phrase("in the kitchen", "dans la cuisine", "en la cocina", "in der Küche"),
    Phrase("at the station", "à la gare", "en la estación", "am Bahnhof"),
    Phrase("at the market", "au marché", "en el mercado", "auf dem Markt"),
    Phrase("on the beach", "sur la plage", "en la playa", "am Strand"),
    Phrase("in the library", "à la bibliothèque", "en la biblioteca", "in der Bibliothek"),
    Phrase("at school", "à l'école", "en la escuela", "in der Schule"),
    Phrase("in the museum", "au musée", "en el museo", "im Museum"),
    Phrase("at home", "à la maison", "en casa", "zu Hause"),
    Phrase("in the street", "dans la rue", "en la calle", "auf der Straße"),
)
_TIMES = (
    Phrase("today", "aujourd'hui", "hoy", "heute"),
    Phrase("every morning", "chaque matin", "cada mañana", "jeden Morgen"),
    Phrase("on Monday", "lundi", "el lunes", "am Montag"),
    Phrase("on Sunday", "dimanche", "el domingo", "am Sonntag"),
    Phrase("often", "souvent", "a menudo", "oft"),
    Phrase("at 3 o'clock", "à 3 heures", "a las 3", "um 3 Uhr"),
    Phrase("for 2 hours", "pendant 2 heures", "durante 2 horas", "2 Stunden lang"),
    Phrase("in the evening", "le soir", "por la noche", "am Abend"),
    Phrase("in summer", "en été", "en verano", "im Sommer"),
    Phrase("with 4 friends", "avec 4 amis", "con 4 amigos", "mit 4 Freunden"),
)
_JOINERS = (
    Phrase(" and ", " et ", " y ", " und "),
    Phrase(", but ", ", mais ", ", pero ", ", aber "),
)
_LANGUAGES = ("French", "Spanish", "German")


def draw(rng: random.Random) -> Record:
    """Draw one pair: a few sentences from English into another language, or the way back."""
    column = rng.randrange(3)
    sentences = [_sentence(rng) for _ in range(rng.randint(1, 6))]
    english = " ".join(sentence.english for sentence in sentences)
    foreign = " ".join(sentence[column + 1] for sentence in sentences)
    language = _LANGUAGES[column]
    if rng.random() < 0.3:
        english, foreign = foreign, english
        language = "English"
    lead = rng.choice(("Translate into {}.", "How do you say this in {}?", "Give the {} translation.")).format(language)
    if rng.random() < 0.5:
        return Record(instruction=lead, input=english, output=foreign, domain="translation")
    return Record(instruction=f"{lead} {english}", input="", output=foreign, domain="translation")


def _sentence(rng: random.Random) -> Phrase:
    clause = _clause(rng)
    if rng.random() < 0.4:
        joiner, second = rng.choice(_JOINERS), _clause(rng)
        clause = Phrase(*(f"{a}{word}{b}" for a, word, b in zip(clause, joiner, second, strict=True)))
    return Phrase(*(text[0].upper() + text[1:] + "." for text in clause))


def _clause(rng: random.Random) -> Phrase:
    name = rng.choice(NAMES)
    who = Phrase(name, name, name, name) if rng.random() < 0.3 else rng.choice(_SUBJECTS)
    verb, place, when = rng.choice(_VERBS), rng.choice(_PLACES), rng.choice(_TIMES)
    english, french, spanish, _ = (" ".join(parts) for parts in zip(who, verb, place, when, strict=True))
    return Phrase(english, french, spanish, f"{who.german} {verb.german} {when.german} {place.german}")
