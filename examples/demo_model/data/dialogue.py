"""The output of all generators: exchanges, and the dialogues they are strung into."""

from __future__ import annotations

from dataclasses import dataclass

END_OF_TURN = "<|im_end|>"
START_OF_TURN = "<|im_start|>"
END_OF_TEXT = "<|endoftext|>"
SPECIALS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, its answer, and the answer where short ones are wanted. `topic` names the
    fact it comes from, for follow-up questions."""

    asked: str
    says: str
    brief: str
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    role: str  # "system" | "user" | "assistant"
    content: str
    topic: str = ""  # of a question: the fact that answers it, where there is one


@dataclass(frozen=True, slots=True)
class Document:
    """A dialogue, or, where there are no messages, plain text to be continued."""

    messages: tuple[Message, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a document's text. `is_answer`: the model has to write it; `topic`: what is asked
    in it, or just before it where it opens the answer."""

    text: str
    is_answer: bool
    topic: str = ""


def segments(document: Document) -> list[Segment]:
    """The text of a document in pieces: what the chat template makes, to the letter. An answer
    ends with the token that ends it."""
    if not document.messages:
        return [Segment(document.text + END_OF_TEXT, True)]
    pieces: list[Segment] = []
    topic = ""
    for message in document.messages:
        head = f"{START_OF_TURN}{message.role}\n"
        if message.role == "assistant":
            pieces += [
                Segment(head, False, topic),
                Segment(message.content + END_OF_TURN, True),
                Segment("\n", False),
            ]
        else:
            topic = message.topic
            pieces.append(Segment(f"{head}{message.content}{END_OF_TURN}\n", False, topic))
    return pieces
