"""The function calls of a compact step: as they grow, as they are published, and as an ending object names them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processor.core.acyclic import mypyc_attr
from processor.core.growing_text import Text
from processor.core.merge import Tree
from processor.core.wire_types import read_text

_encode: Final = msgspec.json.Encoder().encode
_NOTHING: Final = b""
_COMMA: Final = b","
_CALLS: Final = b'{"tool_calls":['
_CALLS_END: Final = b'],"type":"tool_calls"}'
_ARGUMENTS: Final = b'{"function":{"arguments":"'
_NAME: Final = b'","name":'
_OUTPUT: Final = b',"output":null},"id":'
_NO_OUTPUT: Final = b'},"id":'
_TYPE: Final = b',"type":'
_FUNCTION: Final = b'"function"'
_CLOSE: Final = b"}"
"""The pieces of the canonical details of function calls."""


@mypyc_attr(acyclic=True)
class Call:
    """A function call of a compact step: what its first delta said, and its arguments so far.

    Its id and name are kept as JSON, for they are published and compared as that.
    """

    __slots__ = ("kind", "quoted_id", "quoted_name", "says_output", "text")

    def __init__(self, quoted_id: bytes, kind: str, quoted_name: bytes, text: Text, *, says_output: bool) -> None:
        self.quoted_id, self.kind, self.quoted_name, self.text = quoted_id, kind, quoted_name, text
        self.says_output = says_output

    @property
    def call_id(self) -> str:
        return read_text(self.quoted_id)

    @property
    def name(self) -> str:
        return read_text(self.quoted_name)

    def entry(self) -> Tree:
        """As the tree has it."""
        function: Tree = {"name": self.name, "arguments": self.text}
        if self.says_output:
            function["output"] = None
        return {"type": self.kind, "id": self.call_id, "function": function}


def pieces_of(calls: list[Call]) -> list[Any]:
    """Of each call its id and its name as JSON, and its arguments as they stand between the quotes of theirs."""
    told: list[Any] = []
    for call in calls:
        told += [call.quoted_id, call.quoted_name, call.text.inside()]
    return told


def details_of(calls: list[Call], told: list[Any], outputs: int) -> bytes:
    """The canonical details of an ended step.

    Args:
        told: what `pieces_of` gives.
        outputs: bits of the calls of which the ending object says that they have no output.
    """
    pieces: list[Any] = [_CALLS]
    at = 0
    for number, call in enumerate(calls):
        if at:
            pieces.append(_COMMA)
        kind = _FUNCTION if call.kind == "function" else _encode(call.kind)
        output = _OUTPUT if call.says_output or outputs >> number & 1 else _NO_OUTPUT
        pieces += [_ARGUMENTS, told[at + 2], _NAME, told[at + 1], output, told[at], _TYPE, kind]
        pieces.append(_CLOSE)
        at += 3
    pieces.append(_CALLS_END)
    return _NOTHING.join(pieces)


class NamedCalls:
    """The details of an ending object that names so many function calls, in the bytes of one producer.

    Args:
        parts: the bytes around what differs from object to object; the quotes of ids and names are none of them.
        order: for each place between two parts what stands there: a place in what `pieces_of` gives.
        kinds: the types of the calls.
        texts: bits of the calls whose arguments are null, and so left to the fold.
        outputs: bits of the calls whose output is null; the others say none.
    """

    __slots__ = ("_order", "_parts", "kinds", "outputs", "texts")

    def __init__(self, parts: list[bytes], order: list[int], kinds: list[str], texts: int, outputs: int) -> None:
        self._parts, self._order, self.kinds = parts, order, kinds
        self.texts, self.outputs = texts, outputs

    def are_said_by(self, details: bytes, calls: list[Call], told: list[Any]) -> bool:
        """Whether these details name these calls, each with the arguments that it has or with none."""
        kinds = self.kinds
        for number, call in enumerate(calls):
            if call.kind != kinds[number]:
                return False
        if len(calls) > 1 and len({call.quoted_id for call in calls}) < len(calls):
            return False
        pieces: list[Any] = [self._parts[0]]
        at = 1
        for place in self._order:
            pieces.append(told[place])
            pieces.append(self._parts[at])
            at += 1
        return _NOTHING.join(pieces) == details
