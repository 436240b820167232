"""Repeats: whether an event whose sequence number came before is the one that had it then.

Some gateways give all events the same number, begin to count anew or leave a default in some kinds of events. Taken for
repeats, such events would be lost. What an event did is still to be seen in the state of its response: where it is not,
the event has not come before, and its number says nothing (docs/decisions/0033).
"""

from __future__ import annotations

from processor.core.responses.event import ADDED, BEGINS, DONE, END, ERROR, NOT_SAID, OF_ITEMS, PIECES, ResponseEvent
from processor.core.responses.placing import is_another
from processor.core.responses.response import Response


def may_be_repeat(response: Response, event: ResponseEvent, number: int, *, is_index_said: bool) -> bool:
    """Whether an event whose number came before may be a repeat of the event that had it.

    `event` has been placed (`placing.index_of`)."""
    what = event.what
    if what in (END, ERROR):
        return response.ending is not None
    is_named = is_index_said or bool(event.item_id)
    if _had_another(response, event, number, is_named=is_named):
        return False
    if what not in OF_ITEMS or event.index == NOT_SAID:
        return True
    item = response.items.get(event.index)
    if item is None:
        return not is_named
    if number < item.begun:
        return False
    if what == DONE and not item.is_stated:
        return False
    return what != ADDED or number == item.begun or not is_another(response, item, event, is_news=False)


def _had_another(response: Response, event: ResponseEvent, number: int, *, is_named: bool) -> bool:
    """Whether the number is that of the last event, which was of another kind or item.

    Args:
        is_named: the event says an index or an id. One that does not is placed at the next index once its item has
            ended: that is no other item.
    """
    if number != response.numbers.next - 1:
        return False
    last, kind, index = response.last
    if last == number:
        is_placed = is_named or event.index in response.items
        return kind != kind_of(event) or (index != event.index and is_placed)
    for item in response.items.values():
        if item.numbered == number:
            return event.what != PIECES or event.index != item.index
    return False


def kind_of(event: ResponseEvent) -> str:
    """Kind of an event, by which two events of the same number are told apart."""
    return BEGINS if event.begins else event.what
