"""Placing: the item that an event of a response is of, where `output_index` alone does not say it.

Some gateways leave `output_index` out, give several items the same one, or count on before an item is done. Then the
item's id decides, and where there is none, which item is open. What is found depends on the state alone, so that a
repeated event finds the item that it found before.
"""

from __future__ import annotations

from typing import Any

from processor.core.effects import Status
from processor.core.merge import MAX_INDEX
from processor.core.responses.event import ADDED, DONE, NOT_SAID, OF_ITEMS, ResponseEvent
from processor.core.responses.item import Item
from processor.core.responses.response import Response


def index_of(response: Response, event: ResponseEvent) -> int:
    """Find the index of an event's item, which need not have begun; `NOT_SAID` where nothing tells it."""
    said = event.index
    if event.what not in OF_ITEMS:
        return said
    if said == NOT_SAID:
        return _by_id(response, event)
    if response.has_moved:
        return _among_moved(response, event)
    if said not in response.items and event.item_id and event.what != ADDED:
        # It counted on before this item was done.
        found = [item for item in response.open_items() if item.own_id() == event.item_id and _suits(item, event)]
        if len(found) == 1:
            return found[0].index
    return said


def is_another(response: Response, item: Item, event: ResponseEvent, *, is_news: bool) -> bool:
    """Whether an event that begins or ends an item means another one than that which has its index.

    Args:
        is_news: its number comes for the first time, and is not one of those that were missing.
    """
    if response.ending is not None or event.what not in (ADDED, DONE):
        return False
    own, known = event.item_id, item.own_id()
    if own and own == known:
        return False
    if not _suits(item, event):
        return True
    if own and known and not response.rotates and (event.what == ADDED or item.is_stated):
        return True
    return event.what == ADDED and item.is_stated and is_news


def free_index(response: Response) -> int:
    """The index of the next item; `NOT_SAID` where there is none left."""
    found = max(response.items, default=-1) + 1
    return found if found < MAX_INDEX else NOT_SAID


def _by_id(response: Response, event: ResponseEvent) -> int:
    """Find the index for an event without `output_index`: by the item's id, else by which items are open."""
    items = response.items
    if event.what == ADDED:
        if event.number is not None:
            for index, item in items.items():
                if item.begun == event.number and (item.own_id() or event.item_id) == event.item_id:
                    return index
        named = [item for item in items.values() if item.own_id() == event.item_id and event.item_id]
        return named[-1].index if named else free_index(response)
    found = response.open_items()
    named = [item for item in found if item.own_id() == event.item_id and event.item_id]
    if len(named) == 1:
        return named[0].index
    if event.item_id:
        ended = [item for item in items.values() if item.own_id() == event.item_id]
        if ended and not named:
            return ended[-1].index
    suiting = [item for item in found if _suits(item, event)]
    if len(suiting) == 1:
        return suiting[0].index
    if found:
        return NOT_SAID
    if items and not event.item_id and event.what != DONE:
        return max(items)  # behind the end of the last one
    return free_index(response)


def _among_moved(response: Response, event: ResponseEvent) -> int:
    """Find the index for an event whose `output_index` several items have, or one that was moved."""
    said = event.index
    found = [item for item in response.items.values() if item.said == said]
    if not found:
        return free_index(response) if said in response.items else said
    named = [item for item in found if item.own_id() == event.item_id and event.item_id]
    if named:
        return named[-1].index
    if event.number is not None and event.number < response.numbers.next:  # of the one that was there then
        found = [item for item in found if item.begun <= event.number] or found
    else:
        found = [item for item in found if item.status is Status.IN_PROGRESS] or found
    found = [item for item in found if _suits(item, event)] or found
    return found[-1].index


def _suits(item: Item, event: ResponseEvent) -> bool:
    """Whether the type that an event implies agrees with the item's, as far as both have one."""
    known = item.item.get("type")
    value: Any = event.value
    if event.texts:
        return known is None or known == event.texts[0][0].item_type
    if event.what in (ADDED, DONE) and type(value) is dict:
        return known is None or value.get("type") in (None, known)
    return True
