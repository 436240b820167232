"""Responses events: what each does to the items of its response. Status by the same lifecycle table as run steps."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import Any, Final

from msgspec import structs

from processor.core.deadlines import FIRST_S
from processor.core.effects import FOLD_VERSION, Reason, Rejected, Status
from processor.core.entry import Cause, Entry
from processor.core.events import run_named
from processor.core.headers import trace_of
from processor.core.lifecycle import Kind, Move, move
from processor.core.merge import MAX_INDEX
from processor.core.observer import Observer
from processor.core.quarantine import Quarantine
from processor.core.responses import event as said
from processor.core.responses.decode import MAX_RESPONSE_ID, name_of, named_response
from processor.core.responses.event import NOT_SAID, OF_RESPONSES, ResponseEvent
from processor.core.responses.fast_path import TextPath
from processor.core.responses.item import Item
from processor.core.responses.mapping import as_error, holds_replacement, stated_status
from processor.core.responses.numbers import Order
from processor.core.responses.placing import free_index, index_of, is_another
from processor.core.responses.repeats import kind_of, may_be_repeat
from processor.core.responses.response import Response, entry_key
from processor.core.responses.shared_name import REFUSED, is_of_another, note_created, says_nothing, seconds
from processor.core.responses.wire import Place
from processor.core.rules import Rules
from processor.core.transitions import SKIP, Transitions
from processor.core.wire_types import RunEnd, canonical

_OPEN: Final = Status.IN_PROGRESS


class ResponseFold:
    """Folds the Responses events of one partition."""

    __slots__ = (
        "_fold_version",
        "_max_age_s",
        "_max_step_bytes",
        "_named",
        "_named_at",
        "_object_type",
        "_observer",
        "_quarantine",
        "_transitions",
        "_unknown",
        "fast",
    )

    def __init__(
        self, rules: Rules, transitions: Transitions, quarantine: Quarantine, observer: Observer | None
    ) -> None:
        self._max_age_s, self._max_step_bytes = rules.max_age_s + rules.grace_s, rules.max_step_bytes
        self._object_type, self._unknown = rules.object_type, rules.unknown_events
        self._transitions, self._quarantine, self._observer = transitions, quarantine, observer
        self.fast = TextPath(rules.max_step_bytes, transitions)
        self._fold_version = FOLD_VERSION  # of the response at hand
        self._named_at = -1
        self._named = ""  # the response that an earlier event of the same record named

    # --- any event ----------------------------------------------------------------------------------------------

    def is_remembered(self, response_id: str, cause: Cause) -> bool:
        """Whether there is an entry of this response that a record has not been applied to."""
        entry = self._transitions.lookup(entry_key(response_id), cause.offset)
        return entry is not None and entry is not SKIP

    def apply_event(self, cause: Cause, event: ResponseEvent, event_id: str | None, number: str) -> None:
        """Fold one event; a bug on the way sets its record aside and quarantines its response.

        Args:
            number: which event of its record it is (`2/3`), "" where the record has one only.
        """
        held = len(self._transitions.effects)
        response_id = None
        try:
            response_id = self._response_id(cause, event)
            if response_id is None and event.what == said.FOREIGN:
                refused: Rejected | None = Rejected(Reason.MALFORMED, "a JSON object of no known form")
            elif response_id is None and event.what == said.ERROR:
                self._transitions.counts["ignored"] += 1
                refused = None
            elif response_id is None:
                refused = Rejected(Reason.MALFORMED, "neither key nor header names the response")
            else:
                refused = self._fold(cause, event, event_id, response_id)
        except MemoryError:
            raise
        except Exception as error:
            key = None if response_id is None else entry_key(response_id)
            self._quarantine.break_event(cause, key, held, error, number)
            return
        if refused is not None:
            self._transitions.reject(cause, refused, number)

    def _response_id(self, cause: Cause, event: ResponseEvent) -> str | None:
        """The response of an event: by the record's key or header, else by what the record itself says."""
        record = cause.record
        assert record is not None
        named = run_named(record.key, record.headers, MAX_RESPONSE_ID)
        if named is not None:
            return named
        if event.what in (said.LIFE, said.END):
            named = named_response(event.value)
            if named is not None:
                self._named_at, self._named = record.offset, named
            return named
        return self._named if self._named_at == record.offset else None

    def _fold(self, cause: Cause, event: ResponseEvent, event_id: str | None, response_id: str) -> Rejected | None:
        transitions = self._transitions
        key = entry_key(response_id)
        entry = transitions.lookup(key, cause.offset)
        if entry is SKIP:
            return None
        what = event.what
        if entry is None:
            if what == said.FOREIGN:
                return Rejected(Reason.MALFORMED, "a JSON object of no known form")
            if transitions.is_full() and what not in (said.END, said.ERROR):
                if self._observer is not None:
                    self._observer.run_refused(response_id)
                return transitions.refuse(key, cause)
            response = Response(response_id, cause.offset, transitions.stream_time // 1000)
            entry = transitions.begin(response, cause)
            if self._observer is not None:
                self._observer.response_opened(response_id, cause)
        elif entry.refused:
            return transitions.refuse_again(entry, cause)
        else:
            transitions.touch(entry, cause)
            held = entry.materialise()
            assert isinstance(held, Response)
            response = held
        response.last_offset, self._fold_version = cause.offset, entry.fold_version
        response.cursor = None
        refused = None
        if (event.begins or response.is_shared) and is_of_another(response, event):
            self._settle(entry, response, cause)
            if not says_nothing(event):
                return REFUSED
            transitions.counts["ignored"] += 1
            return None
        news = self._news(response, event, event_id)
        if news is not None:
            refused = self._take(entry, response, cause, news)
            if refused is not None:
                self._give_back(response, news, event_id)
        self._settle(entry, response, cause)
        return refused

    def _news(self, response: Response, event: ResponseEvent, event_id: str | None) -> ResponseEvent | None:
        """Place an event at its item, and note its number, or its id where it has none; None if it is a repeat."""
        counts, numbers, number = self._transitions.counts, response.numbers, event.number
        is_index_said = event.index != NOT_SAID
        index = index_of(response, event)
        if index != event.index:
            event = structs.replace(event, index=index, said=event.index)
        if number is None:
            return self._news_by_id(response, event, event_id)
        before = numbers.next
        order = numbers.take(number, is_first=event.begins)
        if order is Order.OLD:
            if may_be_repeat(response, event, number, is_index_said=is_index_said):
                counts["duplicate"] += 1
                return None
            # An id that is made of this number says nothing either.
            own_id = None if event_id == f"{response.response_id}:{number}" else event_id
            return self._news_by_id(response, structs.replace(event, number=None), own_id)
        item = response.items.get(event.index) if event.what in said.OF_ITEMS else None
        if order is Order.LATE:
            if item is not None:
                item.begun = min(item.begun, number)
            if item is not None and not _may_append(item, event, number):
                counts["late"] += 1  # it would stand in the wrong place: it stays missing, until the text is done
                return None
        else:
            if order is Order.GAP and number - max(before, 0) > response.unnumbered:
                counts["sequence_gap"] += 1
                response.note_gap()
            response.unnumbered = 0
        placed = self._not_another(response, event, item, is_news=order is not Order.LATE)
        if event.what != said.PIECES and number == numbers.next - 1:
            response.last = (number, kind_of(event), placed.index)
        return placed

    def _news_by_id(self, response: Response, event: ResponseEvent, event_id: str | None) -> ResponseEvent | None:
        """`_news` for an event without a number, or with one that says nothing: repeats are told by event id."""
        if event.what == said.END:
            return event
        if event_id is not None:
            if response.has_folded(event_id):
                self._transitions.counts["duplicate"] += 1
                return None
            response.note_folded(event_id)
            response.held_bytes += len(event_id)
        response.lacks_numbers = True
        response.unnumbered += 1
        item = response.items.get(event.index) if event.what in said.OF_ITEMS else None
        return self._not_another(response, event, item, is_news=False)

    def _not_another(
        self, response: Response, event: ResponseEvent, item: Item | None, *, is_news: bool
    ) -> ResponseEvent:
        """Give an event a free index where it means another item than the one that has its index."""
        if item is None:
            return event
        if is_another(response, item, event, is_news=is_news):
            index = event.index if event.said == NOT_SAID else event.said
            return structs.replace(event, index=free_index(response), said=index)
        own = item.own_id()
        if own and event.item_id and own != event.item_id and event.what != said.PIECES:  # the fast path has those
            response.rotates = True
        return event

    def _give_back(self, response: Response, event: ResponseEvent, event_id: str | None) -> None:
        """Forget the number or id of a refused event, so that it is no repeat when a redrive puts it back."""
        if event.number is not None:
            response.numbers.give_back(event.number)
        elif event_id is not None and response.has_folded(event_id):
            assert response.seen is not None
            response.seen.discard(event_id)
            response.held_bytes -= len(event_id)

    def _take(self, entry: Entry, response: Response, cause: Cause, event: ResponseEvent) -> Rejected | None:
        counts, what = self._transitions.counts, event.what
        if what in said.OF_ITEMS:
            return self._item_event(response, cause, event)
        if what == said.LIFE:
            counts[OF_RESPONSES + Kind.IN_PROGRESS.value] += 1
            response.facts.take(event.value, mended=event.mended)
            note_created(response, event)
        elif what == said.END:
            counts[OF_RESPONSES + "run_end"] += 1
            self._end(response, cause, event)
        elif what == said.ERROR:
            counts[OF_RESPONSES + "run_end"] += 1
            entry.irregular = True
            run = RunEnd(response.response_id, "failed", None, as_error(event.value))
            self._end_open(response, cause, run, mended=event.mended)
        elif what == said.UNKNOWN:
            if self._unknown == "dead-letter":
                return Rejected(Reason.UNKNOWN_EVENT, "an event of this name is not known")
            counts["unknown_event"] += 1
        else:
            counts["ignored"] += 1
        return None

    # --- items --------------------------------------------------------------------------------------------------

    def _item_event(self, response: Response, cause: Cause, event: ResponseEvent) -> Rejected | None:
        counts = self._transitions.counts
        if event.index == NOT_SAID:
            return Rejected(Reason.BAD_INDEX, "output_index: not said, and nothing else names the item")
        item = response.items.get(event.index)
        if event.what == said.DONE and event.value is None:
            if item is None or item.is_stated:
                counts["ignored"] += 1
                return None
            event = structs.replace(event, value=item.whole())  # it ends, and nothing is said of it
        size = (
            _size_of(cause) if event.what not in (said.PIECES, said.WHOLES) else sum(len(t) for _, _, t in event.texts)
        )
        held = 0 if event.what == said.DONE else response.held_bytes
        if held + size > self._max_step_bytes or (item is not None and item.oversize and event.what in said.INSIDE):
            if item is not None:
                item.stop_growing()
            counts[OF_RESPONSES + _kind_of(event).value] += 1
            return Rejected(Reason.STEP_TOO_LARGE, f"the response would hold more than {self._max_step_bytes} bytes")
        kind = _kind_of(event)
        counts[OF_RESPONSES + kind.value] += 1
        chosen = move(
            None if item is None else item.status, kind, inferred=item is not None and item.inference is not None
        )
        if item is None:
            item = self._begin(response, event.index, cause, is_added=event.what == said.ADDED)
            item.begun = response.numbers.next if event.number is None else event.number
            if event.said != NOT_SAID:
                item.said, response.has_moved = event.said, True
            if event.item_id and event.what in said.INSIDE:
                item.item["id"] = event.item_id
        elif chosen is None:
            return Rejected(Reason.ILLEGAL_TRANSITION, f"{kind.value} after {item.status.value}")
        if event.mended:
            item.add_anomaly("replaced_half")
        if event.what == said.ADDED:
            self._added(response, item, cause, event.value, chosen)
        elif event.what == said.DONE:
            self._done(response, item, cause, event.value, chosen)
        else:
            self._inside(response, item, cause, event)
        return None

    def _added(self, response: Response, item: Item, cause: Cause, value: dict[str, Any], chosen: Move | None) -> None:
        if chosen is Move.REPEAT or item.object_bytes:
            self._transitions.counts["repeated"] += 1
            return
        item.item = {**item.item, **value}
        self._grow(response, item, _size_of(cause), 0)
        self._folded(item, cause)

    def _done(self, response: Response, item: Item, cause: Cause, value: dict[str, Any], chosen: Move | None) -> None:
        if chosen is Move.RESTATE and sha256(canonical(value)).digest() == item.stated_digest:
            self._transitions.counts["repeated"] += 1
            return
        known = item.item.get("type")
        if known is not None and value.get("type") != known:
            item.add_anomaly("changed_field")
        self._folded(item, cause)
        self._state(response, item, cause, value)

    def _inside(self, response: Response, item: Item, cause: Cause, event: ResponseEvent) -> None:
        if item.is_stated or item.is_carried:  # all of it has been said: nothing that comes later adds to it
            self._transitions.counts["repeated"] += 1
            return
        before = None if item.status is _OPEN else item.encoded(self._object_type)
        size, characters = 0, item.characters
        if event.what == said.PIECES:
            if event.number is not None:
                item.numbered = event.number
            for place, index, text in event.texts:
                if not _is_of_others(place, item):
                    item.append(place, index, text)
        elif event.what == said.WHOLES:
            for place, index, text in event.texts:
                if not _is_of_others(place, item):
                    item.check(place, index, text)
        elif event.what == said.ANNOTATION:
            at, annotation = event.value
            item.annotate(event.at, at, annotation)
            size = _size_of(cause)
        else:
            item.add_part(event.holder, event.at, event.value, is_done=event.what == said.PART_DONE)
            size = _size_of(cause)
        response.held_bytes += item.characters - characters
        self._grow(response, item, 0, size)
        self._folded(item, cause)
        if before is not None and item.encoded(self._object_type) != before:
            self._publish(item, cause)

    def _begin(self, response: Response, index: int, cause: Cause, *, is_added: bool) -> Item:
        item = Item(response.response_id, index, response.facts, cause.offset, self._transitions.stream_time // 1000)
        item.first_offset = response.first_offset
        item.began_s = max(0, cause.timestamp) // 1000
        response.items[index] = item
        record = cause.record
        if record is not None and record.headers:
            item.trace = trace_of(record)
        if not is_added:
            item.add_anomaly("joined_midstream")
        if response.unsaid_gap or (response.gaps and not is_added):
            item.add_anomaly("sequence_gap")
            response.unsaid_gap = False
        if response.ending is not None:
            item.add_anomaly("after_run_ended")
        if self._observer is not None:
            self._observer.opened(entry_of_item(item), item, cause)
        return item

    def _state(
        self, response: Response, item: Item, cause: Cause, value: dict[str, Any], *, may_be_cut: bool = False
    ) -> None:
        """End an item with its own last word, and publish it."""
        before = item.status
        item.end(value, stated_status(value), max(0, cause.timestamp) // 1000, may_be_cut=may_be_cut)
        item.stated_digest = sha256(canonical(value)).digest()
        response.held_bytes -= item.object_bytes + item.characters
        item.object_bytes = item.characters = 0
        self._publish(item, cause)
        self._observe_end(item, before, cause)
        if self._observer is None:
            item.drop_contents()

    def _infer(self, response: Response, item: Item, cause: Cause, run: RunEnd) -> None:
        """End an item as its response did, and publish it."""
        before = item.status
        item.end_with_run(run, cause.timestamp)
        self._publish(item, cause)
        self._observe_end(item, before, cause)

    def _publish(self, item: Item, cause: Cause) -> None:
        item.revision += 1
        if item.facts.mended:
            item.add_anomaly("replaced_half")
        transitions = self._transitions
        if not transitions.is_silent:
            transitions.effects.append(transitions.publication.of_step(item, cause, self._fold_version))
        if self._observer is not None:
            self._observer.published(entry_of_item(item), item)

    def _observe_end(self, item: Item, before: Status, cause: Cause) -> None:
        if self._observer is not None:
            self._observer.finished(entry_of_item(item), item, before.value, cause)

    def _folded(self, item: Item, cause: Cause) -> None:
        item.last_offset = cause.offset
        item.events += 1

    def _grow(self, response: Response, item: Item, object_bytes: int, characters: int) -> None:
        response.held_bytes += object_bytes + characters
        item.object_bytes += object_bytes
        item.characters += characters

    # --- the end of a response --------------------------------------------------------------------------------

    def _end(self, response: Response, cause: Cause, event: ResponseEvent) -> None:
        """Close what is open from the items that the response carries, and publish those that were never seen."""
        value, status = event.value, event.status
        response.facts.take(value, mended=event.mended)
        note_created(response, event)
        run = RunEnd(response.response_id, status, seconds(value.get(f"{status}_at")), as_error(value.get("error")))
        outputs: list[dict[str, Any]] = value.get("output") or []
        for index, output in self._matched(response, outputs):
            item = response.items.get(index)
            if item is not None and item.is_stated:
                continue  # an item that is done is final: its copy here may be another (encrypted content, rotated ids)
            self._close_item(response, cause, event, run, index, output)
        self._end_open(response, cause, run, value.get("incomplete_details"), mended=event.mended)

    def _close_item(
        self, response: Response, cause: Cause, event: ResponseEvent, run: RunEnd, index: int, output: dict[str, Any]
    ) -> None:
        item = response.items.get(index)
        if item is None:
            item = self._begin(response, index, cause, is_added=False)
        elif item.status is _OPEN and run.status in ("completed", "incomplete"):
            item.add_anomaly("orphaned_by_run")
        if response.gaps:
            item.add_anomaly("sequence_gap")
        if event.mended and holds_replacement(output):
            item.add_anomaly("replaced_half")
        # Numbers without a gap prove that all of the text came. Else it may be cut, and its beginning is no difference.
        may_be_cut = event.number is None or response.gaps > 0 or response.lacks_numbers
        is_stated = run.status == "completed" or output.get("status") in ("completed", "failed")
        if is_stated:
            self._folded(item, cause)
            self._state(response, item, cause, output, may_be_cut=may_be_cut)
        elif item.status is _OPEN:
            self._folded(item, cause)
            item.end(output, item.status, 0, may_be_cut=may_be_cut)
            item.is_stated, item.is_carried, item.ended_s = False, True, None
            response.held_bytes += _size_of(cause) - item.object_bytes - item.characters
            item.object_bytes, item.characters = _size_of(cause), 0
            item.incomplete = event.value.get("incomplete_details")
            self._infer(response, item, cause, run)

    def _matched(self, response: Response, outputs: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
        """Which item each of a response's outputs is: that of its id, else that of its position.

        An id that is empty, or that several outputs have, tells none; nor does the position of an item of another type
        that has not stated its end: its contents are not these. Such an output is a new item, where one may be lacking.
        """
        by_id = {item.own_id(): index for index, item in response.items.items()}
        ids = Counter([name_of(output.get("id")) for output in outputs])
        may_lack = response.gaps > 0 or len(outputs) > len(response.items)
        found: dict[int, dict[str, Any]] = {}
        for position, output in enumerate(outputs[:MAX_INDEX]):
            own = name_of(output.get("id"))
            index = by_id.get(own, -1) if own and ids[own] == 1 else -1
            if index < 0:
                index = position
                if _has_another_type(response.items.get(position), output):
                    index = max(len(outputs) - 1, *response.items, *found) + 1
            if index < MAX_INDEX and index not in found and (index in response.items or may_lack):
                found[index] = output
        return sorted(found.items())

    def _end_open(self, response: Response, cause: Cause, run: RunEnd, incomplete: Any = None, *, mended: bool) -> None:
        """L6: end the items that are open still, and remember the end for what arrives late."""
        for item in response.open_items():
            if response.gaps:
                item.add_anomaly("sequence_gap")
            if mended and holds_replacement(run.last_error):
                item.add_anomaly("replaced_half")
            item.incomplete = incomplete
            self._infer(response, item, cause, run)
        response.ending = run

    # --- deadlines, and what becomes of the entry --------------------------------------------------------------

    def expire(self, entry: Entry, due_s: int, cause: Cause) -> None:
        """L7: end the items that are due."""
        transitions = self._transitions
        response = entry.materialise()
        assert isinstance(response, Response)
        transitions.touch(entry, cause)
        self._fold_version = entry.fold_version
        for item in response.open_items():
            if item.opened_s + self._max_age_s <= due_s:
                before = item.status
                at_s = due_s - transitions.grace_s
                item.infer("deadline", Status.EXPIRED, at_s)
                transitions.counts["deadline_by_mark" if cause.mark else "deadline_by_record"] += 1
                self._publish(item, cause)
                self._observe_end(item, before, cause)
        if not response.open_items():
            entry.irregular = True
            response.ending = RunEnd(response.response_id, "expired", due_s - transitions.grace_s, None)
        self._settle(entry, response, cause)

    def fire_idle(self) -> None:
        """Forget responses that have had no open item for so long that one would have expired."""
        transitions = self._transitions
        idle = transitions.idle
        while (due := idle.earliest_ms()) is not None and due <= transitions.stream_time:
            for key in idle.take_earliest():
                entry = transitions.steps[key]
                entry.due_s = 0
                entry.irregular = True  # its tail alone would look like one that is open
                transitions.counts["response_unended"] += 1
                self._forget_at_work(entry)
                entry.step = None
                transitions.forget_open(entry)

    def _settle(self, entry: Entry, response: Response, cause: Cause) -> None:
        """Update the entry of a response after an event: ended and packed, or open and due with its oldest item."""
        transitions = self._transitions
        ending = response.ending
        if ending is not None:
            for item in response.open_items():  # it began after the end
                self._infer(response, item, cause, ending)
            was_open = entry.status is _OPEN
            if was_open:
                entry.status = Status.COMPLETED
                self._forget_at_work(entry)
                transitions.close(entry)
                transitions.retention.queue_ended(entry)
            entry.step = None
            entry.hold_packed(response.pack())
            if was_open:
                transitions.retention.keep_ended(entry)
            return
        found = response.open_items()
        transitions.weigh(entry, max(1, len(found)))
        since_s = min(item.opened_s for item in found) if found else transitions.stream_time // 1000
        transitions.set_due(entry, max(FIRST_S, since_s + self._max_age_s), is_idle=not found)
        at_work = self.fast.at_work
        if len(at_work) > 2 * len(transitions.steps) + 1_000:
            at_work.clear()
        at_work[response.id_bytes] = entry

    def _forget_at_work(self, entry: Entry) -> None:
        self.fast.at_work.pop(entry.key[1:].encode(), None)

    def load(self, entry: Entry, due_s: int) -> None:
        """Remember an open response that a checkpoint holds."""
        response = entry.peek()
        assert isinstance(response, Response)
        found = response.open_items()
        if found:  # under longer settings than those before none of them ends at `due_s`
            due_s = max(due_s, min(item.opened_s for item in found) + self._max_age_s)
        self._transitions.weigh(entry, max(1, len(found)))
        self._transitions.set_due(entry, due_s, is_idle=not found)


def _kind_of(event: ResponseEvent) -> Kind:
    if event.what == said.ADDED:
        return Kind.CREATED
    return Kind(stated_status(event.value).value) if event.what == said.DONE else Kind.DELTA


def _may_append(item: Item, event: ResponseEvent, number: int) -> bool:
    """Whether an event that comes late may add to an item: no later piece has been appended, and nothing is whole."""
    if event.what == said.ANNOTATION:
        return ("content", event.at) not in item.wholes
    if event.what != said.PIECES:
        return True
    return number > item.numbered and not any(item.has_whole(place, index) for place, index, _ in event.texts)


def _has_another_type(item: Item | None, output: dict[str, Any]) -> bool:
    """Whether an item that has not stated its end is of another type than this output."""
    known = None if item is None or item.is_stated else item.item.get("type")
    return known is not None and output.get("type") not in (None, known)


def _is_of_others(place: Place, item: Item) -> bool:
    """Whether a text that no SDK knows belongs to items of another type than this one."""
    return place.is_guessed and item.item.get("type") not in (None, place.item_type)


def entry_of_item(item: Item, due_s: int = 0) -> Entry:
    """An item as an entry of its own, for readers."""
    entry = Entry(item.step_id, item.first_offset)
    entry.status, entry.opened_s, entry.run_id, entry.due_s = item.status, item.opened_s, item.run_id, due_s
    entry.hold(item)
    return entry


def _size_of(cause: Cause) -> int:
    record = cause.record
    assert record is not None
    assert record.value is not None
    return len(record.value)
