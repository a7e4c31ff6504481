"""Simple facts about the world, from tables: days, months, colours, capitals, animals."""

from __future__ import annotations

import random

from examples.demo_model.data.dialogue import Exchange

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
NUMBERS = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
]  # fmt: skip

RAINBOW = ["red", "orange", "yellow", "green", "blue", "indigo", "violet"]
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "England": "London", "Ireland": "Dublin", "Austria": "Vienna",
    "Switzerland": "Bern", "Poland": "Warsaw", "Greece": "Athens", "Norway": "Oslo",
    "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Belgium": "Brussels",
    "Hungary": "Budapest", "Russia": "Moscow", "Ukraine": "Kyiv", "Turkey": "Ankara",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Morocco": "Rabat", "Japan": "Tokyo", "China": "Beijing",
    "India": "Delhi", "Thailand": "Bangkok", "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima",
    "Chile": "Santiago", "Brazil": "Brasilia", "Australia": "Canberra", "Iceland": "Reykjavik",
}  # fmt: skip
COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "blood": "red", "the sun": "yellow",
    "a banana": "yellow", "a lemon": "yellow", "coal": "black", "milk": "white",
    "a carrot": "orange", "a tomato": "red", "a strawberry": "red", "a leaf": "green",
    "the sea": "blue", "chocolate": "brown", "a frog": "green", "a raven": "black",
    "a flamingo": "pink", "a plum": "purple", "an elephant": "grey", "a pumpkin": "orange",
    "salt": "white", "earth": "brown", "a cherry": "red", "a cucumber": "green",
}  # fmt: skip
OPPOSITES = [
    "hot:cold", "big:small", "fast:slow", "old:new", "high:low", "long:short", "good:bad",
    "day:night", "black:white", "up:down", "left:right", "happy:sad", "rich:poor", "full:empty",
    "open:closed", "wet:dry", "loud:quiet", "strong:weak", "light:dark", "early:late", "first:last",
    "hard:soft", "easy:difficult", "clean:dirty", "near:far", "young:old", "thick:thin",
    "true:false", "heavy:light", "inside:outside", "push:pull", "begin:end", "love:hate",
    "win:lose",
]  # fmt: skip
SOUNDS = [
    "dog:barks", "cat:meows", "cow:moos", "sheep:bleats", "horse:neighs", "pig:grunts",
    "lion:roars", "duck:quacks", "bee:buzzes", "frog:croaks", "snake:hisses", "wolf:howls",
    "mouse:squeaks", "owl:hoots", "bird:sings",
]  # fmt: skip
LEGS = [
    "dog:four", "cat:four", "horse:four", "cow:four", "spider:eight", "ant:six", "bee:six",
    "bird:two", "chicken:two", "snake:no", "fish:no", "octopus:eight", "elephant:four", "frog:four",
    "duck:two", "beetle:six", "person:two",
]  # fmt: skip
YOUNG = [
    "dog:puppy", "cat:kitten", "cow:calf", "sheep:lamb", "horse:foal", "hen:chick", "duck:duckling",
    "lion:cub", "frog:tadpole", "goat:kid", "pig:piglet", "bear:cub",
]  # fmt: skip
COUNTS = {
    "days are in a week": "A week has seven days.",
    "months are in a year": "A year has twelve months.",
    "days are in a year": "A year has 365 days, and 366 in a leap year.",
    "hours are in a day": "A day has 24 hours.",
    "minutes are in an hour": "An hour has 60 minutes.",
    "seconds are in a minute": "A minute has 60 seconds.",
    "seconds are in an hour": "An hour has 3600 seconds.",
    "weeks are in a year": "A year has 52 weeks.",
    "letters are in the alphabet": "The English alphabet has 26 letters.",
    "fingers does a hand have": "A hand has five fingers.",
    "sides does a triangle have": "A triangle has three sides.",
    "sides does a square have": "A square has four sides.",
    "corners does a square have": "A square has four corners.",
    "wheels does a car have": "A car has four wheels.",
    "wheels does a bicycle have": "A bicycle has two wheels.",
    "seasons are there": "There are four seasons: spring, summer, autumn and winter.",
    "colours are in a rainbow": "A rainbow has seven colours.",
    "bits are in a byte": "A byte has eight bits.",
    "bytes are in a kilobyte": "A kilobyte has 1000 bytes, and a kibibyte 1024.",
    "metres are in a kilometre": "A kilometre has 1000 metres.",
    "centimetres are in a metre": "A metre has 100 centimetres.",
    "grams are in a kilogram": "A kilogram has 1000 grams.",
    "years are in a century": "A century has 100 years.",
    "continents are there": "There are seven continents.",
    "planets are there": "Eight planets go around the sun.",
}
THINGS = {
    "the largest planet": "The largest planet is Jupiter.",
    "the largest animal": "The largest animal is the blue whale.",
    "the tallest animal": "The tallest animal is the giraffe.",
    "the fastest animal on land": "The fastest animal on land is the cheetah.",
    "the largest ocean": "The largest ocean is the Pacific.",
    "the highest mountain": "The highest mountain is Mount Everest.",
    "the smallest prime number": "The smallest prime number is 2.",
    "the planet we live on": "We live on the Earth.",
    "the star nearest to us": "The star nearest to us is the sun.",
    "water made of": "Water is made of hydrogen and oxygen.",
    "ice": "Ice is frozen water.",
    "bread made of": "Bread is made of flour, water and salt.",
    "a cat": "A cat is a small animal with soft fur that likes to sleep and to hunt mice.",
    "a dog": "A dog is an animal that lives with people and barks.",
    "a tree": "A tree is a large plant with a trunk, branches and leaves.",
    "a computer": "A computer is a machine that calculates and stores data.",
    "a robot": "A robot is a machine that can move and do work by itself.",
    "the moon": "The moon is a ball of rock that goes around the Earth.",
    "the sun": "The sun is a star. It gives us light and warmth.",
    "a byte": "A byte is eight bits.",
    "a cpu": "A CPU is the part of a computer that calculates.",
    "ram": "RAM is the memory that a computer works with while it runs.",
    "a matrix": "A matrix is a table of numbers in rows and columns.",
    "a tensor": "A tensor is a block of numbers: a list, a table, or more dimensions.",
    "a vector": "A vector is a list of numbers.",
    "an api": "An API is a way for programs to talk to each other.",
    "a server": "A server is a program that answers requests from others.",
    "a port": "A port is a number by which programs on one machine are told apart.",
    "json": "JSON is a text format for data, with objects, lists, strings and numbers.",
    "linux": "Linux is a free operating system.",
    "python": "Python is a programming language.",
    "numba": "Numba compiles Python functions to fast machine code.",
}
ASK_WHAT = ("what is {}", "what's {}", "do you know what {} is", "tell me what {} is", "{}")


def world_exchange(rng: random.Random) -> Exchange:
    """A question about the world and its answer."""
    return rng.choice(_KINDS)(rng)


def _after(rng: random.Random) -> Exchange:
    names, kind = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    i = rng.randrange(len(names))
    step, word = rng.choice(((1, "after"), (-1, "before")))
    asked = rng.choice(
        (f"which {kind} comes", f"what {kind} is", "what comes", f"what {kind} comes")
    )
    other = names[(i + step) % len(names)]
    verb = rng.choice(("comes", "is"))
    return Exchange(f"{asked} {word} {names[i]}", f"{other} {verb} {word} {names[i]}.", other)


def _listed(rng: random.Random) -> Exchange:
    kind, names = rng.choice(
        (("days of the week", DAYS), ("months of the year", MONTHS), ("months", MONTHS),
         ("seasons", ["spring", "summer", "autumn", "winter"]),
         ("colours of the rainbow", RAINBOW))
    )  # fmt: skip
    asked = rng.choice(
        ("what are the {}", "list the {}", "name the {}", "tell me the {}", "the {}")
    )
    text = ", ".join(names[:-1]) + " and " + names[-1]
    return Exchange(asked.format(kind), f"The {kind} are {text}.", text + ".")


def _capital(rng: random.Random) -> Exchange:
    country, city = rng.choice(list(CAPITALS.items()))
    if rng.random() < 0.25:
        asked = rng.choice(("{} is the capital of which country", "where is {}",
                            "of which country is {} the capital"))  # fmt: skip
        return Exchange(asked.format(city), f"{city} is the capital of {country}.", country)
    asked = rng.choice(("what is the capital of {}", "what's the capital of {}", "capital of {}",
                        "which city is the capital of {}", "tell me the capital of {}",
                        "do you know the capital of {}", "name the capital of {}"))  # fmt: skip
    return Exchange(asked.format(country), f"The capital of {country} is {city}.", f"{city}.")


def _colour(rng: random.Random) -> Exchange:
    thing, colour = rng.choice(list(COLOURS.items()))
    asked = rng.choice(("what colour is {}", "what color is {}", "which colour has {}",
                        "what is the colour of {}", "tell me the colour of {}"))  # fmt: skip
    return Exchange(asked.format(thing), f"{thing.capitalize()} is {colour}.", f"{colour}.")


def _opposite(rng: random.Random) -> Exchange:
    pair = rng.choice(OPPOSITES).split(":")
    a, b = pair if rng.random() < 0.5 or "light" in pair or "old" in pair else pair[::-1]
    asked = rng.choice(("what is the opposite of {}", "opposite of {}", "what's the opposite of {}",
                        "tell me the opposite of {}", "the opposite of {}"))  # fmt: skip
    return Exchange(asked.format(a), f"The opposite of {a} is {b}.", f"{b}.")


def _animal(rng: random.Random) -> Exchange:
    kind = rng.randrange(3)
    if kind == 0:
        animal, sound = rng.choice(SOUNDS).split(":")
        asked = rng.choice(
            ("what does a {} do", "what sound does a {} make", "how does a {} sound")
        )
        return Exchange(asked.format(animal), f"A {animal} {sound}.", f"It {sound}.")
    if kind == 1:
        animal, legs = rng.choice(LEGS).split(":")
        name = ("an " if animal[0] in "aeo" else "a ") + animal
        asked = rng.choice(("how many legs does {} have", "how many legs has {}", "legs of {}"))
        return Exchange(
            asked.format(name), f"{name.capitalize()} has {legs} legs.", f"{legs} legs."
        )
    animal, young = rng.choice(YOUNG).split(":")
    asked = rng.choice(("what is a young {} called", "what do you call a baby {}",
                        "a young {} is a", "what is a baby {}"))  # fmt: skip
    return Exchange(asked.format(animal), f"A young {animal} is called a {young}.", f"A {young}.")


def _count(rng: random.Random) -> Exchange:
    asked, says = rng.choice(list(COUNTS.items()))
    return Exchange(f"how many {asked}", says, says)


def _thing(rng: random.Random) -> Exchange:
    asked, says = rng.choice(list(THINGS.items()))
    frame = "what is {}" if asked.endswith(" of") else rng.choice(ASK_WHAT)
    return Exchange(frame.format(asked), says, says)


_KINDS = (_after, _listed, _capital, _capital, _colour, _opposite, _animal, _count, _thing, _thing)
