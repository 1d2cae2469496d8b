"""The front end: a NumPy function on abstract arrays becomes a Graph, and a Program that can run.

Nothing is computed and nothing of the arrays' size is allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from ckpt.errors import TapeError, UsageError
from ckpt.graph import Graph, Node
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, abstract
from ckpt.tape.core.context import CURRENT, caller, inside
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import OUT, Op
from ckpt.tape.core.value import Value
from ckpt.tape.traced.derived import forward_kernel
from ckpt.tape.traced.flow import Edge, pull_back
from ckpt.tape.traced.kernel import Kernel


@dataclass(eq=False, slots=True)
class Entry:
    """What a trace knows of a tape node beside the node: how it runs and where it came from."""

    node: TapeNode
    kernel: Kernel | None = None
    array: Any = None
    """A captured array, or the leaf's argument number."""
    role: str = ""
    """``input``, ``parameter`` or ``captured`` for what isn't computed."""
    scope: str = ""
    source: str = ""
    keep: bool = False
    name: str = ""


class Recorder:
    """Collects the nodes of a trace, in the order of the program."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.positions: dict[TapeNode, int] = {}
        self.captured: dict[int, TapeNode] = {}
        self.regions = count()

    def add(self, entry: Entry) -> TapeNode:
        self.positions[entry.node] = len(self.entries)
        self.entries.append(entry)
        return entry.node

    def leaf(self, array: AbstractArray, role: str, name: str) -> Value:
        node = TapeNode(None, (), None, 0, array)
        node.requires_grad = role == "parameter"
        node.value = array
        self.add(Entry(node, array=array, role=role, name=name))
        return Value(array, node)

    def capture(self, array: np.ndarray[Any, Any]) -> TapeNode:
        """The node of a plain array, one for each array however often it is met."""
        if id(array) not in self.captured:
            node = TapeNode(None, (), None, 0, array)
            node.value = abstract(array)
            self.captured[id(array)] = node
            self.add(Entry(node, array=array, role="captured", source=caller()))
        return self.captured[id(array)]

    def record(self, op: Op, arrays: list[Any], inputs: list[Any], params: Any, mask: int) -> Value:
        context = CURRENT.get()
        assert context is not None
        for k, source in enumerate(inputs):
            if type(source) is np.ndarray:
                inputs[k] = self.capture(source)
                arrays[k] = abstract(source)
            elif type(source) is TapeNode and source not in self.positions:
                if source.requires_grad:
                    raise TapeError(
                        "the traced function reads a Value that isn't among its arguments; pass it "
                        "in, so that its gradient can be returned"
                    )
                inputs[k] = self.capture(np.asarray(arrays[k]))
                arrays[k] = abstract(arrays[k])
        arrays = [abstract(a) if isinstance(a, np.generic) else a for a in arrays]
        kernel = forward_kernel(op, tuple(arrays), params)
        array = kernel.array
        if not isinstance(array, AbstractParts) and array.dtype.kind not in "fc":
            mask = 0
        node = TapeNode(op, tuple(inputs), params, mask, array)
        node.value = array
        node.region = context.region
        keep = context.region is not None and context.region.keeps(node)
        name = str(params["name"]) if params and "name" in params else op.name
        self.add(Entry(node, kernel, scope=context.scope, source=caller(), keep=keep, name=name))
        return Value(array, node)


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


@dataclass(eq=False)
class Program:
    """A traced function: its Graph, and what is needed to perform a schedule of it on arrays."""

    graph: Graph
    entries: list[Entry]
    edges: list[tuple[Edge | None, ...]]
    arguments: tuple[Any, ...]
    """The function's arguments, AbstractArrays for arrays."""
    leaves: list[tuple[int, int]]
    """Of each array argument: its place among the flattened arguments, and its node."""
    parameters: list[int]
    """The nodes to return gradients of, in the order of the differentiated arguments."""
    argnums: tuple[int, ...]
    single: bool
    loss: int
    aux: Any = None
    aux_nodes: list[int] = field(default_factory=list)
    has_aux: bool = False


def trace(
    function: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
) -> Program:
    """Run ``function(*args)`` on shapes and dtypes alone and return the Program.

    ``args`` are arrays, `ckpt.spec` stand-ins for arrays, nested lists/tuples/dicts of them, or
    anything else, which is passed as it is. Float arrays in the arguments ``argnums`` are the
    parameters. ``function`` returns a scalar loss (with ``has_aux``, a pair of loss and anything).
    Raises TapeError where the loss isn't a scalar that depends on a parameter, and AbstractError
    where the program needs values.
    """
    if not callable(function):
        raise UsageError(f"a function is traced, not a {type(function).__name__}")
    recorder = Recorder()
    single = isinstance(argnums, int)
    numbers = tree.positions_of(argnums)
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise TapeError(f"argnums {number} is out of range: there are {len(args)} arguments")
    numbers = tuple(number % len(args) for number in numbers)
    leaves: list[tuple[int, int]] = []
    parameters: list[int] = []
    place = count()

    def stand_in(number: int, path: str) -> Callable[[Any], Any]:
        def convert(item: Any) -> Any:
            at = next(place)
            if isinstance(item, Value):
                item = item.data
            if not isinstance(item, (np.ndarray, AbstractArray, np.generic)):
                if number not in numbers or not isinstance(item, (bool, int, float, complex)):
                    return item
                item = np.complex128(item) if isinstance(item, complex) else np.float64(item)
            array = abstract(item)
            differentiated = number in numbers
            if differentiated and array.dtype.kind not in "fc":
                raise TapeError(
                    f"argument {number} holds a {array.dtype} array, which has no gradient; "
                    "make it float, or move it to another argument"
                )
            role = "parameter" if differentiated else "input"
            value = recorder.leaf(array, role, f"{path}{len(leaves)}")
            position = recorder.positions[value._node]
            leaves.append((at, position))
            if differentiated:
                parameters.append(position)
            return value

        return convert

    with inside(recorder=recorder, region=None):
        stand_ins = [
            tree.rebuild(argument, stand_in(k, "p" if k in numbers else "x"))
            for k, argument in enumerate(args)
        ]
        result = function(*stand_ins)
    aux = None
    if has_aux:
        if not isinstance(result, tuple) or len(result) != 2:
            raise TapeError("with has_aux the function returns a pair (loss, aux)")
        result, aux = result
    loss = _loss(result, recorder)
    aux_nodes = [
        recorder.positions[v._node]
        for v in tree.leaves(aux)
        if isinstance(v, Value) and v._node in recorder.positions
    ]
    positions = recorder.positions
    edges = pull_back(recorder.entries, positions, loss)
    graph = Graph(
        nodes=tuple(_node(e, edges[i], positions) for i, e in enumerate(recorder.entries)),
        losses=(loss,),
        outputs=(loss, *aux_nodes),
        name=name or getattr(function, "__name__", ""),
    )
    arrays = {at: recorder.entries[position].array for at, position in leaves}
    place = count()
    abstract_args = tuple(tree.rebuild(a, lambda v: arrays.get(next(place), v)) for a in args)
    return Program(
        graph, recorder.entries, edges, abstract_args, leaves, parameters,
        numbers, single, loss, aux, aux_nodes, has_aux,
    )  # fmt: skip


def _loss(result: Any, recorder: Recorder) -> int:
    if not isinstance(result, Value):
        raise TapeError(
            f"the function returned a {type(result).__name__}, and not a loss computed from its "
            "parameters with NumPy functions"
        )
    if result.shape != ():
        raise TapeError(
            f"the loss is not a scalar but has shape {result.shape}: reduce it (np.sum, np.mean)"
        )
    if result._node.op is None and result.requires_grad:
        raise TapeError("the loss is a parameter as it is, so there is nothing to compute")
    if not result.requires_grad or result._node not in recorder.positions:
        raise TapeError("the loss depends on none of the parameters, so there is no gradient")
    return recorder.positions[result._node]


def _node(entry: Entry, edges: tuple[Edge | None, ...], positions: dict[TapeNode, int]) -> Node:
    """The graph's node for a tape node."""
    node = entry.node
    array = node.value
    several = isinstance(array, AbstractParts)
    common = {
        "name": entry.name,
        "shape": () if several else array.shape,
        "dtype": "tuple" if several else _dtype_name(array.dtype),
        "nbytes": array.nbytes,
    }
    if entry.kernel is None:
        return Node(
            op=entry.role,
            resident=entry.role != "captured",
            captured=entry.role == "captured",
            requires_grad=node.requires_grad,
            source=entry.source,
            **common,
        )
    assert node.op is not None and node.inputs is not None
    sources = [k for k, s in enumerate(node.inputs) if type(s) is TapeNode]
    deps = [positions[node.inputs[k]] for k in sources]
    kernel = entry.kernel
    alias = None
    if not kernel.is_fresh:
        places = [
            k for k, s in enumerate(node.inputs) if type(s) is TapeNode or isinstance(s, np.generic)
        ]
        alias = positions[node.inputs[places[kernel.root]]]
    else:
        common["nbytes"] = kernel.nbytes
    residuals = [
        positions[node] if k == OUT else positions[node.inputs[k]]
        for k in node.op.keeps(len(node.inputs), node.mask)
        if k == OUT or type(node.inputs[k]) is TapeNode
    ]
    found = [edges[k] for k in sources]
    return Node(
        op=node.op.name,
        deps=tuple(deps),
        flops=kernel.flops,
        backward_flops=sum(e.flops for e in found if e),
        residuals=tuple(dict.fromkeys(residuals)),
        requires_grad=node.requires_grad,
        workspace=kernel.workspace,
        backward_workspace=tuple(e.workspace if e else 0 for e in found),
        alias_of=alias,
        cotangents=tuple(e.kind if e else None for e in found),
        spread_nbytes=tuple(e.spread_nbytes if e else 0 for e in found)
        if any(e and e.spread_nbytes for e in found)
        else (),
        regions=node.region.path() if node.region else (),
        keep=entry.keep,
        scope=entry.scope,
        source=entry.source,
        **common,
    )
