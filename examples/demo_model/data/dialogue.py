"""What all generators make: exchanges, and the dialogues they are strung into."""

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


@dataclass(frozen=True, slots=True)
class Document:
    """A dialogue, or, where there are no messages, plain text to be continued."""

    messages: tuple[Message, ...] = ()
    text: str = ""


def segments(document: Document) -> list[tuple[str, bool]]:
    """The text of a document in pieces, and whether the model has to write the piece: answers
    with the token that ends them. The pieces are what the chat template makes, to the letter."""
    if not document.messages:
        return [(document.text + END_OF_TEXT, True)]
    pieces: list[tuple[str, bool]] = []
    for message in document.messages:
        head = f"{START_OF_TURN}{message.role}\n"
        if message.role == "assistant":
            pieces += [(head, False), (message.content + END_OF_TURN, True), ("\n", False)]
        else:
            pieces.append((f"{head}{message.content}{END_OF_TURN}\n", False))
    return pieces
