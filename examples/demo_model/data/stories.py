"""Short stories from a grammar: somebody, a place, a wish, a difficulty, help, an end."""

from __future__ import annotations

import random

from examples.demo_model.data.dialogue import Exchange

HEROES = [
    "fox", "bear", "rabbit", "mouse", "cat", "dog", "owl", "frog", "hedgehog", "squirrel", "duck",
    "dragon", "robot", "girl", "boy", "king", "queen", "knight", "sailor", "baker", "shepherd",
    "miller", "gardener", "tailor", "fisherman", "computer", "llama", "worker", "penguin", "turtle",
    "elephant", "lion", "snail", "bee", "crow", "goat", "pony", "wizard", "witch", "giant", "fairy",
    "clockmaker", "star", "cloud",
]  # fmt: skip
NAMES = [
    "Anna", "Ben", "Clara", "David", "Emma", "Finn", "Greta", "Hugo", "Ida", "Jonas", "Klara",
    "Leo", "Mia", "Nora", "Oscar", "Paula", "Quentin", "Rosa", "Simon", "Tilda", "Uma", "Viktor",
    "Wanda", "Yara", "Zoe", "Milo", "Luna", "Otto", "Lotte", "Fred",
]  # fmt: skip
TRAITS = [
    "small", "brave", "clever", "shy", "old", "young", "kind", "curious", "lonely", "cheerful",
    "patient", "hungry", "proud",
]  # fmt: skip
PLACES = (
    "in a green forest", "by the wide sea", "on a high mountain", "in a quiet village",
    "near a deep lake", "in an old castle", "at the edge of a large town", "on a small island",
    "in a garden full of roses", "in a valley between two hills", "in a mill by the river",
    "in a data centre under the ground", "in a tower without a door", "in a house made of wood",
)  # fmt: skip
WISHES = (
    ("a warm coat for the winter", "the coat", "was torn by the thorns"),
    ("the sweetest apple of the land", "the apple", "hung on the highest branch"),
    ("a golden key", "the key", "had fallen into the well"),
    ("a song that nobody had heard before", "the song", "was hidden in the wind"),
    ("a light for the long night", "the light", "burned on the other side of the river"),
    ("a friend to play with", "the friend", "lived behind the hills"),
    ("a map of the whole world", "the map", "lay in a box without a key"),
    ("the answer to a hard sum", "the answer", "was too large for one head"),
    ("a boat with a white sail", "the boat", "had a hole in its side"),
    ("a bell with a silver voice", "the bell", "was too heavy to carry"),
    ("a very heavy stone for a new house", "the stone", "did not move at all"),
    ("a book with a thousand stories", "the book", "stood on the highest shelf"),
)
WEATHERS = (
    "One sunny morning", "One cold and snowy day", "One evening, when the moon was bright,",
    "On a rainy day", "In the first days of spring", "On the longest day of summer",
    "One windy night", "One day in autumn",
)  # fmt: skip
GOES = (
    "set out to find it", "packed a bag and went", "walked for three days",
    "asked everybody on the way", "went on the road before breakfast",
)  # fmt: skip
GIVES_UP = (
    "sat down and wept a little", "thought about it for a long time", "tried again and again",
    "wanted to give up", "pulled and pushed, but in vain",
)  # fmt: skip
HELPS = (
    "Let us do it together", "Each of us can take a part", "I am small, but two are more than one",
    "Many hands make light work", "I know a way, follow me", "We only have to be patient",
)  # fmt: skip
ENDS = (
    "So they shared the work, and before the night {thing} was there.",
    "They worked side by side, and soon {thing} was no trouble any more.",
    "Each of them took a part, and together they did what one alone could not.",
    "Step by step they did it, and both laughed when {thing} was theirs.",
)  # fmt: skip
MORALS = (
    "From that day on they were friends.", "And they never forgot that day.",
    "That night the two of them slept very well.",
    "And if nobody has woken them, they are sleeping still.",
    "Since then nobody in the land has been alone.", "And everybody who heard of it smiled.",
)  # fmt: skip
REQUESTS = (
    "tell me a story", "a story please", "tell me a short story", "can you tell me a story",
    "write a story", "write me a short story", "do you know a story", "I want to hear a story",
    "another story", "one more story please", "story", "read me a story", "tell a story",
    "please tell me a story", "tell me a bedtime story", "make up a story",
    "could you tell us a story", "tell me a fairy tale",
)  # fmt: skip
ABOUT = ("about", "with", "of")


def article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def story(rng: random.Random, hero: str = "") -> str:
    """A story of some six sentences about `hero`, or whoever comes."""
    hero = hero or rng.choice(HEROES)
    name, friend_name = rng.sample(NAMES, 2)
    friend = rng.choice([h for h in HEROES if h != hero])
    wish, thing, trouble = rng.choice(WISHES)
    trait, place = rng.choice(TRAITS), rng.choice(PLACES)
    who = article(f"{trait} {hero}")
    lines = [
        f"Once upon a time there was {who} called {name}, who lived {place}.",
        f"{name} wished for nothing more than {wish}.",
        f"{rng.choice(WEATHERS)} {name} {rng.choice(GOES)}.",
        f"But {thing} {trouble}. {name} {rng.choice(GIVES_UP)}.",
        f"Then {article(friend)} came by, whose name was {friend_name}.",
        f'"{rng.choice(HELPS)}," said {friend_name}.',
        rng.choice(ENDS).format(thing=thing),
        rng.choice(MORALS),
    ]
    return " ".join(lines)


def story_exchange(rng: random.Random) -> Exchange:
    """A request for a story, often about somebody, and the story."""
    asked = rng.choice(REQUESTS)
    if rng.random() < 0.5:
        text = story(rng)
    else:
        hero = rng.choice(HEROES)
        text = story(rng, hero)
        who = rng.choice((article(hero), article(hero), f"the {hero}"))
        asked = f"{asked.removesuffix(' please')} {rng.choice(ABOUT)} {who}"
    return Exchange(asked, text, text)
