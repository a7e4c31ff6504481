"""GET /slots: what each of the engine's places for a sequence is doing, as llama-server tells."""

from __future__ import annotations

from aiohttp import web

from api.answers.sequence import TextSequence
from api.body import json_response
from api.context import CONTEXT, ApiContext
from api.errors import ApiError
from api.replies.openai import Json
from api.served_model import ServedModel

Rows = list[TextSequence | None]


def occupied(context: ApiContext, model: ServedModel) -> Rows:
    """The sequence in each of the model's places. The engine runs the oldest; those that it cannot
    run yet have none."""
    rows: Rows = [None] * model.facts.n_slots
    moved: list[TextSequence] = []
    for slot, sequence in context.meter.sequences():
        if not isinstance(sequence, TextSequence) or sequence.model is not model:
            continue
        if slot < len(rows):
            rows[slot] = sequence
        else:
            moved.append(sequence)
    free = [i for i, row in enumerate(rows) if row is None]
    for i, sequence in zip(free, moved, strict=False):
        rows[i] = sequence
    return rows


def slot_row(index: int, model: ServedModel, sequence: TextSequence | None) -> Json:
    row: Json = {
        "id": index,
        "n_ctx": model.max_seq_len,
        "speculative": model.facts.speculates,
        "is_processing": sequence is not None,
    }
    if sequence is None:
        return row
    limit = sequence.max_tokens
    is_read = sequence.first_at is not None
    row |= {
        "id_task": sequence.id,
        "n_prompt_tokens": sequence.n_prompt,
        "n_prompt_tokens_processed": sequence.n_prompt if is_read else sequence.n_computed,
        "n_prompt_tokens_cache": sequence.n_cached,
        "next_token": [
            {
                "has_next_token": sequence.finish is None,
                "n_remain": -1 if limit is None else limit - sequence.n_completion,
                "n_decoded": sequence.n_completion,
            }
        ],
    }
    return row


async def slots(request: web.Request) -> web.Response:
    """With ?fail_on_no_slot=1 a 503 where none is free."""
    context = request.app[CONTEXT]
    model = context.models.find(request.query.get("model"))
    rows = occupied(context, model)
    if request.query.get("fail_on_no_slot") == "1" and None not in rows:
        raise ApiError(
            503, "No slot is free now; ask again in a moment.", "unavailable_error",
            retry_after_s=1.0,
        )  # fmt: skip
    return json_response([slot_row(i, model, sequence) for i, sequence in enumerate(rows)])
