"""The function calls of a compact step: as they grow, as they are published, and as an ending object names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from processor.core.acyclic import mypyc_attr
from processor.core.growing_text import Text
from processor.core.learned_bytes import size_of
from processor.core.merge import Tree
from processor.core.run_steps.object_shape import NOWHERE, Frame
from processor.core.wire_types import read_text

if TYPE_CHECKING:
    from mypy_extensions import i64  # for the compiler alone

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
_KIND: Final = "function"
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


class CallsFrame(Frame):
    """A frame with places for function calls, too.

    `calls`: where id, name and arguments of each belong, one call after the other; `NOWHERE`: it has no place.
    """

    __slots__ = ("calls",)

    def __init__(self, blank: list[bytes], spots: bytes, calls: bytes) -> None:
        super().__init__(blank, spots)
        self.calls = calls

    def put_calls(self, pieces: list[Any], calls: list[Call]) -> None:
        """Put function calls into a copy of `blank`: ids and names as JSON, arguments as they stand between quotes."""
        spots = self.calls
        at: i64 = 0
        for call in calls:
            spot: i64 = spots[at]
            if spot != NOWHERE:
                pieces[spot] = call.quoted_id
            spot = spots[at + 1]
            if spot != NOWHERE:
                pieces[spot] = call.quoted_name
            spot = spots[at + 2]
            if spot != NOWHERE:
                pieces[spot] = call.text.inside()
            at += 3

    def filled(self, calls: list[Call]) -> bytes:
        """The bytes with these function calls."""
        pieces: list[Any] = self.blank.copy()
        self.put_calls(pieces, calls)
        return _NOTHING.join(pieces)


def are_functions(calls: list[Call]) -> bool:
    """Whether all of them say that they are functions."""
    for call in calls:  # noqa: SIM110  compiled, `all` makes an object that yields them
        if call.kind != _KIND:
            return False
    return True


def outputs_of(calls: list[Call]) -> int:
    """Bits of the calls that said that they have no output."""
    found, bit = 0, 1
    for call in calls:
        if call.says_output:
            found |= bit
        bit <<= 1
    return found


def details_of(calls: list[Call], outputs: int) -> bytes:
    """The canonical details of an ended step.

    Args:
        outputs: bits of the calls of which the ending object says that they have no output.
    """
    pieces: list[Any] = [_CALLS]
    for number, call in enumerate(calls):
        if number:
            pieces.append(_COMMA)
        kind = _FUNCTION if call.kind == _KIND else _encode(call.kind)
        output = _OUTPUT if call.says_output or outputs >> number & 1 else _NO_OUTPUT
        pieces += [_ARGUMENTS, call.text.inside(), _NAME, call.quoted_name, output, call.quoted_id, _TYPE, kind, _CLOSE]
    pieces.append(_CALLS_END)
    return _NOTHING.join(pieces)


CALL_PIECES: Final = 6
CALL_PLACES: Final = (5, 3, 1)
"""Of how many pieces `layout_of` has for a call, those that are empty: for its id, its name and its arguments."""


def layout_of(number: int, outputs: int) -> list[bytes]:
    """The pieces of what `details_of` gives for so many functions, and a last one behind them."""
    pieces: list[bytes] = []
    before = _CALLS
    for call in range(number):
        output = _OUTPUT if outputs >> call & 1 else _NO_OUTPUT
        pieces += [before + _ARGUMENTS, _NOTHING, _NAME, _NOTHING, output, _NOTHING]
        before = _TYPE + _FUNCTION + _CLOSE + _COMMA
    return [*pieces, before.removesuffix(_COMMA) + _CALLS_END]


class NamedCalls:
    """The details of an ending object that names so many function calls, in the bytes of one producer.

    Args:
        frame: its bytes, with places for the calls. The quotes of ids and names are not of the frame.
        kinds: the types of the calls.
        texts: bits of the calls whose arguments are null, and so left to the fold.
        outputs: bits of the calls whose output is null; the others say none.
    """

    __slots__ = ("_frame", "kinds", "outputs", "texts")

    def __init__(self, frame: CallsFrame, kinds: list[str], texts: int, outputs: int) -> None:
        self._frame, self.kinds = frame, kinds
        self.texts, self.outputs = texts, outputs

    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return size_of(self._frame.blank)

    def may_name(self, calls: list[Call]) -> bool:
        """Whether the types are those of these calls, no two of which have one id."""
        kinds = self.kinds
        for number, call in enumerate(calls):
            if call.kind != kinds[number]:
                return False
        return len(calls) < 2 or len({call.quoted_id for call in calls}) == len(calls)

    def said(self, calls: list[Call]) -> bytes:
        """Details that name these calls, each with the arguments that it has or with none."""
        return self._frame.filled(calls)
