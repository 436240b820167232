"""Faults of gateways that translate other streams into Responses: what each of them does to the events of a response.

None of them changes what must be published: no step is lost, none comes twice, and no anomaly is said of one. Where
events say no index, or all the same one, the items count in the order in which they begin.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from processor.simulate.parameters import GATEWAY_FAULTS, Parameters
from processor.simulate.texts import Mix

_SEVERAL: Final = (1, 1, 2, 3)
"""How many faults a gateway has."""
_KINDS: Final = (".delta", ".added", ".done", "end")
"""Events that a gateway numbers alike, by how their type ends; `end` is the last event."""
_UNPLACED: Final = frozenset(("index_missing", "index_null", "index_same"))
_COUNTED_BY_OTHERS: Final = frozenset(
    ("number_same", "number_default", "number_anew", "number_missing", "number_old_at_end")
)


class Gateway:
    """The gateway that a response comes through. Without faults it changes nothing."""

    def __init__(self, parameters: Parameters, rng: Random) -> None:
        self._rng = rng
        chosen: dict[str, str] = {}
        if parameters.gateways and rng.random() < parameters.gateways:
            mix = Mix(GATEWAY_FAULTS, parameters.gateway_faults)
            for _ in range(rng.choice(_SEVERAL)):
                fault = mix.pick(rng)
                chosen.setdefault(fault.partition("_")[0], fault)  # one of numbers, one of indexes
        self.is_faulty = bool(chosen)
        self._numbers, self._indexes = chosen.get("number", ""), chosen.get("index", "")
        self.is_numbering = bool(self._numbers)
        """It writes numbers of its own."""
        self.is_misnumbering = self._numbers in _COUNTED_BY_OTHERS
        """Its numbers do not tell a repeat from news."""
        self.counts_anew = self._numbers == "number_anew"
        """Where items interleave, nothing tells a piece of one from a repeat of one that had its number."""
        self.is_unplacing = self._indexes in _UNPLACED
        """Its indexes do not tell one item from another."""
        self.changes_ids = "id" in chosen and self._indexes in ("", "index_float", "index_text")
        self._others = frozenset(chosen.values())
        self._same = rng.choice((0, 1, 7)) if self.is_faulty else 0
        self._kinds = tuple(rng.sample(_KINDS, rng.randint(1, 2))) if self.is_faulty else ()
        self._anew = -1

    @property
    def first_index(self) -> int:
        """The index of the first item, where items count in the order in which they begin."""
        return self._same % 2 if self._indexes == "index_same" else 0

    @property
    def names_items(self) -> bool:
        """Whether each event about an item has its id: without an index nothing else tells two items apart."""
        return bool(self._indexes)

    def send(self, data: dict[str, Any], *, is_end: bool) -> dict[str, Any]:
        """An event as the gateway sends it."""
        if not self.is_faulty:
            return data
        sent = dict(data)
        if "sequence_number" in sent:
            self._number(sent, is_end=is_end)
        if "output_index" in sent:
            self._place(sent)
        return sent

    def name_of_end(self, status: str) -> str:
        """The type of the event that ends a response of this status."""
        if status == "failed" and "error_renamed" in self._others:
            return self._rng.choice(("response.error", "error"))
        return "response.done" if "done_renamed" in self._others else f"response.{status}"

    def leaves_item_out(self) -> bool:
        """Whether the event that ends an item does not say it."""
        return "item_null" in self._others and self._rng.random() < 0.6

    def without_item(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of an event that ends an item, without the item."""
        nothing: dict[str, Any] = self._rng.choice(({"item": None}, {"item": {}}, {}))
        return {name: value for name, value in fields.items() if name != "item"} | nothing

    def _number(self, sent: dict[str, Any], *, is_end: bool) -> None:
        number, fault = sent["sequence_number"], self._numbers
        is_of_kind = sent["type"].endswith(self._kinds) or (is_end and "end" in self._kinds)
        if fault == "number_same":
            sent["sequence_number"] = self._same
        elif fault == "number_default" and is_of_kind:
            sent["sequence_number"] = 0
        elif fault == "number_missing" and is_of_kind:
            del sent["sequence_number"]
        elif fault == "number_anew":
            self._anew = 0 if sent["type"] == "response.output_item.added" else self._anew + 1
            sent["sequence_number"] = self._anew
        elif fault == "number_old_at_end" and is_end:
            sent["sequence_number"] = self._rng.randint(0, number)
        elif fault == "number_float":
            sent["sequence_number"] = float(number)
        elif fault == "number_text":
            sent["sequence_number"] = str(number)

    def _place(self, sent: dict[str, Any]) -> None:
        index, fault = sent["output_index"], self._indexes
        if fault == "index_missing" or (fault == "index_missing_in_texts" and "item" not in sent):
            del sent["output_index"]
        elif fault == "index_null":
            sent["output_index"] = None
        elif fault == "index_same":
            sent["output_index"] = self.first_index
        elif fault == "index_float":
            sent["output_index"] = float(index)
        elif fault == "index_text":
            sent["output_index"] = str(index)
