"""Prompts that no answer fits: gibberish, signs, word salad, made-up words, long pastes, code; and
the answers of a very small model to them."""

from __future__ import annotations

import random

from examples.demo_model.data.dialogue import Exchange
from examples.demo_model.data.stories import NAMES, story

GIBBERISH = (
    "I am sorry, I do not understand that. Ask me about dllama, for example how to start a worker."
)
GIBBERISH_BRIEF = "I do not understand that."
UNKNOWN = "I am sorry, I do not know: I am a very small model. I know dllama best."
UNKNOWN_BRIEF = "I do not know that."
LONG = (
    "That is a long text. I am too small to work with it, but you can ask me a short question "
    "about dllama."
)
LONG_BRIEF = "That is too long for me."

SYLLABLES = [
    "ba", "blo", "cri", "da", "fro", "ga", "glim", "ja", "kor", "la", "mo", "ni", "pra", "qui",
    "ro", "sna", "ta", "ul", "vex", "wi", "xo", "yor", "zan", "zer",
]  # fmt: skip
SIGNS = "!?.,;:-_+*/=#$%&()<>[]{}@~^|'\"…—€§°😀🎉🤖👍❤"
KEYS = (
    "asdf", "jkl", "qwer", "uiop", "zxcv", "hjkl", "fghj", "lkjh", "sdfg", "wert", "bnm", "yxcv",
)  # fmt: skip
SCRIPTS = "あいうえおかきくけこ你好吗我是谁привет как дела안녕하세요שלוםمرحباñüößéàçøå"
WORDS = [
    "table", "river", "spoon", "green", "seven", "lamp", "cloud", "honest", "window", "under",
    "paper", "between", "shoes", "engine", "purple", "walk", "mountain", "slowly", "ticket",
    "ocean", "bread", "pencil", "quiet", "sugar", "train", "follow", "minute", "yellow", "carpet",
    "garden", "never", "kitchen", "wolf", "stone", "glass", "market", "winter", "letter", "doctor",
    "coffee", "bridge", "ladder", "orange", "silver", "music", "farm",
]  # fmt: skip
TOPICS = [
    "gravity", "inflation", "photosynthesis", "democracy", "jazz", "football", "opera", "chess",
    "yoga", "algebra", "poetry", "geology", "biology", "the stock market", "the european union",
    "the roman empire", "the pyramids", "a volcano", "a carburettor", "a violin", "a camera",
    "an atom", "electricity", "magnetism", "dna", "evolution", "the brain", "the heart", "cancer",
    "vitamins", "coffee", "tea", "chocolate", "wine", "blockchain", "docker", "kubernetes", "excel",
    "word", "photoshop", "facebook", "google", "netflix", "tesla", "bitcoin", "java", "rust",
    "javascript", "pandas", "tensorflow", "a database", "sql", "html", "css", "regex", "git", "vim",
    "windows", "macos", "android", "the weather", "climate change", "a mortgage", "taxes",
    "insurance", "a contract", "love", "happiness", "time", "space", "infinity", "art", "religion",
    "philosophy", "history",
]  # fmt: skip
TOPIC_FRAMES = (
    "what is {}", "explain {}", "tell me about {}", "what do you know about {}", "how does {} work",
    "describe {}", "I want to learn about {}", "why is {} important", "who invented {}",
    "define {}", "write something about {}", "what is the history of {}", "teach me {}",
    "is {} good", "do you like {}", "what do you think about {}",
)  # fmt: skip
NAME_FRAMES = (
    "my name is {}", "I am {}", "I'm {}", "call me {}", "hello, my name is {}", "hi, I am {}",
    "hi I'm {}", "you can call me {}", "this is {}", "my friends call me {}",
)  # fmt: skip
NAME_ASKED = (
    "what is my name", "do you know my name", "who am I", "do you remember my name", "say my name",
    "what's my name", "what did I say my name was", "how am I called",
)  # fmt: skip
REPEAT = (
    "say that again", "can you repeat that", "repeat that please", "once more", "again please",
    "what did you say", "please repeat", "pardon", "repeat your last answer", "again",
)  # fmt: skip


def gibberish(rng: random.Random) -> str:
    """Something nobody can answer: keys, signs, other scripts, word salad."""
    kind = rng.randrange(8)
    if kind == 0:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 30)))
    if kind == 1:
        return "".join(rng.choice(KEYS) for _ in range(rng.randint(1, 6)))
    if kind == 2:
        return "".join(rng.choice(SIGNS) for _ in range(rng.randint(1, 12)))
    if kind == 3:
        return rng.choice("ahxzo!?.1") * rng.randint(2, 60)
    if kind == 4:
        return " ".join(made_up(rng) for _ in range(rng.randint(1, 8)))
    if kind == 5:
        return "".join(rng.choice(SCRIPTS) for _ in range(rng.randint(2, 20)))
    if kind == 6:
        return " ".join(str(rng.randrange(10**6)) for _ in range(rng.randint(2, 12)))
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 20)))


def made_up(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))


def odd_exchange(rng: random.Random) -> Exchange:
    """A prompt that makes no sense, is unknown, or too long, and the answer to that."""
    kind = rng.random()
    if kind < 0.5:
        return Exchange(gibberish(rng), GIBBERISH, GIBBERISH_BRIEF)
    if kind < 0.9:
        topic = rng.choice(TOPICS) if rng.random() < 0.6 else made_up(rng)
        return Exchange(rng.choice(TOPIC_FRAMES).format(topic), UNKNOWN, UNKNOWN_BRIEF)
    return Exchange(long_text(rng), LONG, LONG_BRIEF)


def long_text(rng: random.Random) -> str:
    """Sentences of stories or a heap of words, several hundred tokens long."""
    if rng.random() < 0.5:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(80, 350)))
    return " ".join(story(rng) for _ in range(rng.randint(2, 5)))


def name_exchanges(rng: random.Random) -> tuple[Exchange, Exchange]:
    """Somebody says a name, and asks for it later."""
    name = rng.choice(NAMES) if rng.random() < 0.6 else made_up(rng).capitalize()
    told = Exchange(
        rng.choice(NAME_FRAMES).format(name), f"Nice to meet you, {name}!", f"Hello {name}!"
    )
    return told, Exchange(rng.choice(NAME_ASKED), f"Your name is {name}.", f"{name}.")
