"""The front end: a NumPy function on abstract arrays becomes a Graph.

Nothing is computed and nothing of the arrays' size is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ckpt.errors import TapeError, UsageError
from ckpt.graph import Graph, Node
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, abstract
from ckpt.tape.core.changes import Watch, arrays_among, verify, watch
from ckpt.tape.core.context import CURRENT, inside, run_inside
from ckpt.tape.core.generators import Generators
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op
from ckpt.tape.core.sources import LineOf, caller
from ckpt.tape.core.value import Value
from ckpt.tape.ops.parts import item
from ckpt.tape.traced.derived import forward_kernel
from ckpt.tape.traced.flow import Flow
from ckpt.tape.traced.kernel import Kernel, trace_kernel


@dataclass(eq=False, slots=True)
class Entry:
    """What a trace knows of a tape node beside the node: how it runs and where it came from."""

    node: TapeNode
    kernel: Kernel | None = None
    role: str = ""
    """``input``, ``parameter`` or ``captured`` for what isn't computed."""
    captured: np.ndarray[Any, Any] | None = None
    """The array itself."""
    scope: str = ""
    source: str = ""
    keep: bool = False
    name: str = ""


class Recorder:
    """Collects the nodes of a trace, in the order of the program."""

    kernel_of = staticmethod(trace_kernel)

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.positions: dict[TapeNode, int] = {}
        self.captured: dict[int, TapeNode] = {}
        self.results: dict[TapeNode, list[Value]] = {}
        """Of each op with several results: those, made as soon as it is."""
        self.watches: list[tuple[Watch, Op]] = []
        """Each reading of a plain array."""
        self.kernels: dict[Op, dict[Any, Kernel]] = {}
        """Of the user's ops, which may depend on what changes from trace to trace."""

    def _kernels(self, op: Op) -> dict[Any, Kernel]:
        return op.kernels if op.is_ours else self.kernels.setdefault(op, {})

    def add(self, entry: Entry) -> TapeNode:
        self.positions[entry.node] = len(self.entries)
        self.entries.append(entry)
        return entry.node

    def leaf(self, array: AbstractArray, role: str, name: str) -> Value:
        node = TapeNode(None, (), None, 0, array)
        node.requires_grad = role == "parameter"
        node.value = array
        self.add(Entry(node, role=role, name=name))
        return Value(array, node)

    def capture(self, array: np.ndarray[Any, Any]) -> TapeNode:
        """The node of a plain array, one for each array however often it is met."""
        if id(array) not in self.captured:
            node = TapeNode(None, (), None, 0, array)
            node.value = abstract(array)
            self.captured[id(array)] = node
            self.add(Entry(node, role="captured", captured=np.asarray(array), source=caller()))
        return self.captured[id(array)]

    def watch(self, op: Op, array: Any) -> None:
        """A planned step will read the array where the program reads it now."""
        context = CURRENT.get()
        assert context is not None
        if context.whole >= 0:
            self.watches.append((watch(array, context.whole), op))

    def verify(self, when: str) -> None:
        """MutationError if an array isn't what it was each time that the program read it."""
        for watched, op in self.watches:
            verify(watched, op.name, when)

    def record(self, op: Op, arrays: list[Any], inputs: list[Any], params: Any, mask: int) -> Value:
        if op is item and inputs[0] in self.results:
            k: int = params["k"]
            return self.results[inputs[0]][k]
        context = CURRENT.get()
        assert context is not None
        for k, source in enumerate(inputs):
            if isinstance(source, np.ndarray):
                inputs[k] = self.capture(source)
                arrays[k] = abstract(source)
                self.watch(op, source)
            elif type(source) is TapeNode and source not in self.positions:
                if source.requires_grad:
                    raise TapeError(
                        "the traced function reads a Value that isn't among its arguments; pass it "
                        "in, so that its gradient can be returned"
                    )
                array = np.asarray(arrays[k])
                inputs[k] = self.capture(array)
                arrays[k] = abstract(array)
                self.watch(op, array)
        for array in arrays_among(params):
            self.watch(op, array)
        arrays = [abstract(a) if isinstance(a, np.generic) else a for a in arrays]
        kernel = forward_kernel(op, tuple(arrays), params, self._kernels(op))
        array = kernel.array
        several = isinstance(array, AbstractParts)
        if not several and array.dtype.kind not in "fc":
            mask = 0
        node = TapeNode(op, tuple(inputs), params, mask, array)
        node.value = array
        node.region = context.region
        keep = context.region is not None and context.region.keeps(node)
        name = str(params["name"]) if params and "name" in params else op.name
        self.add(Entry(node, kernel, scope=context.scope, source=caller(), keep=keep, name=name))
        value = Value(array, node)
        if several:
            mask = int(node.requires_grad)
            self.results[node] = [
                self.record(item, [array], [node], {"k": k}, mask) for k in range(len(array))
            ]
        return value

    # -- the graph ---------------------------------------------------------------------------------

    def values(self, source: Any) -> tuple[int, ...]:
        """The nodes of a graph that a source stands for: of several results, each."""
        if source in self.results:
            return tuple(self.positions[result._node] for result in self.results[source])
        return (self.positions[source],)

    def node(self, entry: Entry) -> Node:
        """The graph's node for a tape node."""
        node, kernel = entry.node, entry.kernel
        array = node.value
        call = node in self.results
        common: dict[str, Any] = {
            "name": entry.name,
            "shape": () if call else array.shape,
            "dtype": "tuple" if call else _dtype_name(array.dtype),
            "nbytes": 0 if call else array.nbytes,
            "requires_grad": node.requires_grad,
            "source": entry.source,
        }
        if kernel is None:
            captured = entry.role == "captured"
            return Node(op=entry.role, resident=not captured, captured=captured, **common)
        assert node.op is not None and node.inputs is not None
        sources = [source for source in node.inputs if type(source) is TapeNode]
        is_result = node.op is item
        if is_result:
            deps: tuple[int, ...] = (self.positions[sources[0]],)
        else:
            deps = tuple(p for source in sources for p in self.values(source))
        alias = None
        if kernel.is_fresh and not call:
            common["nbytes"] = kernel.nbytes
        elif not (call or is_result):
            places = [s for s in node.inputs if type(s) is TapeNode or isinstance(s, np.generic)]
            root: Any = places[kernel.root]
            alias = self.positions[root]
        return Node(
            op=node.op.name,
            deps=deps,
            flops=kernel.flops,
            moved_nbytes=0 if is_result else kernel.moved,
            workspace=kernel.workspace,
            scratch=kernel.scratch,
            call=call,
            alias_of=alias,
            regions=node.region.path() if node.region else (),
            keep=entry.keep,
            scope=entry.scope,
            **common,
        )


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


@dataclass(eq=False)
class Traced:
    """A traced function: its graph, and what is needed to perform a schedule of it on arrays."""

    graph: Graph
    entries: list[Entry]
    flow: Flow
    """The backward: what each of the graph's steps does."""
    results: dict[int, tuple[int, ...]]
    arguments: tuple[Any, ...]
    """The function's arguments, AbstractArrays for arrays."""
    leaves: list[tuple[int, int]]
    """Of each array argument: its place among the flattened arguments, and its node."""
    parameters: list[int]
    """The nodes to return gradients of, in the order of the differentiated arguments."""
    argnums: tuple[int, ...]
    single: bool
    """One argument was named alone, and not a tuple of them."""
    loss: int
    has_aux: bool
    aux: Any
    aux_nodes: list[int]
    verify: Callable[[str], None]
    """MutationError, which says when, if a captured array isn't what it was in the trace."""
    moved: str
    """Which random generator moved meanwhile, in words, and before it the line, if looked for."""


def record(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...],
    has_aux: bool,
    name: str,
    *,
    find_draws: bool = False,
) -> Traced:
    """Run ``function(*args)`` on shapes and dtypes alone; see `ckpt.trace`.

    Random generators are put back; with ``find_draws`` it is found out which line moves them.
    """
    if not callable(function):
        raise UsageError(f"a function is traced, not a {type(function).__name__}")
    numbers = tree.chosen(tree.positions_of(argnums), args)
    recorder = Recorder()
    leaves: list[tuple[int, int]] = []
    parameters: list[int] = []
    stand_ins: list[Any] = []
    shapes: list[Any] = []
    for number, argument in enumerate(args):
        differentiated = number in numbers
        for leaf in tree.leaves(argument):
            array = _abstracted(leaf, number, differentiated)
            shapes.append(array)
            if not isinstance(array, AbstractArray):
                stand_ins.append(array)
                continue
            role, letter = ("parameter", "p") if differentiated else ("input", "x")
            stand_ins.append(recorder.leaf(array, role, f"{letter}{len(leaves)}"))
            position = len(recorder.entries) - 1
            leaves.append((len(stand_ins) - 1, position))
            if differentiated:
                parameters.append(position)
    given = tree.unflatten(args, stand_ins)
    watching = Generators(function, given)
    try:
        with LineOf(watching.moved) if find_draws else nullcontext() as found:
            returned = run_inside(lambda: function(*given), recorder=recorder, region=None)
        moved = watching.moved()
        if moved and found is not None and found.line:
            moved = f"{found.line}: {moved}"
    finally:
        watching.restore()
    recorder.verify(
        "before the function returned, and a plan would read it as it is now; let it read a copy "
        "(array.copy())"
    )
    result, aux = tree.loss_and_aux(returned, has_aux)
    return _finished(
        recorder,
        name=name or getattr(function, "__name__", ""),
        result=result,
        has_aux=has_aux,
        aux=aux,
        arguments=tree.unflatten(args, shapes),
        leaves=leaves,
        parameters=parameters,
        argnums=numbers,
        single=isinstance(argnums, int),
        moved=moved,
    )


def _finished(recorder: Recorder, *, name: str, result: Any, aux: Any, **rest: Any) -> Traced:
    """The recorder's nodes as a graph, with its backward."""
    loss = _loss(result, recorder)
    for leaf in tree.leaves(aux):
        _check_aux(leaf)
    positions = recorder.positions
    aux_nodes = [
        positions[v._node]
        for v in tree.leaves(aux)
        if isinstance(v, Value) and v._node in positions
    ]
    nodes = tuple(map(recorder.node, recorder.entries))
    flow = Flow(recorder.entries, nodes, positions, recorder.values).run(loss)
    graph = Graph(
        nodes=nodes,
        steps=tuple(flow.steps),
        rows=tuple(flow.rows),
        outputs=(loss, *aux_nodes),
        name=name,
    )
    return Traced(
        graph=graph,
        entries=recorder.entries,
        flow=flow,
        results={positions[node]: recorder.values(node) for node in recorder.results},
        loss=loss,
        aux=aux,
        aux_nodes=aux_nodes,
        verify=recorder.verify,
        **rest,
    )


def relaid(traced: Traced, arrays: Sequence[Any]) -> Traced:
    """The same nodes for arguments in another memory order; the function doesn't run again."""
    recorder = Recorder()
    made: dict[TapeNode, Value] = {}
    given = {p: abstract(array) for (_, p), array in zip(traced.leaves, arrays, strict=True)}
    for position, entry in enumerate(traced.entries):
        node, params = entry.node, entry.node.params
        if node.op is None:
            array = node.value if entry.captured is not None else given[position]
            made[node] = recorder.leaf(array, entry.role, entry.name)
        elif node.op is item:
            assert node.inputs is not None and params is not None
            made[node] = recorder.results[made[node.inputs[0]]._node][params["k"]]
        else:
            operands = [made[s] if type(s) is TapeNode else s for s in node.inputs or ()]
            data = [v.data if type(v) is Value else v for v in operands]
            inputs = [v._node if type(v) is Value else v for v in operands]
            with inside(recorder=recorder, region=node.region, whole=-1):
                made[node] = recorder.record(node.op, data, inputs, params, node.mask)
    for new, old in zip(recorder.entries, traced.entries, strict=True):
        new.captured, new.scope, new.source = old.captured, old.scope, old.source
        new.keep, new.name = old.keep, old.name
    shapes = list(tree.leaves(traced.arguments))
    for place, position in traced.leaves:
        shapes[place] = given[position]
    return _finished(
        recorder,
        name=traced.graph.name,
        result=made[traced.entries[traced.loss].node],
        has_aux=traced.has_aux,
        aux=tree.rebuild(traced.aux, lambda v: made.get(v._node, v) if type(v) is Value else v),
        arguments=tree.unflatten(traced.arguments, shapes),
        leaves=traced.leaves,
        parameters=traced.parameters,
        argnums=traced.argnums,
        single=traced.single,
        moved=traced.moved,
    )


def _abstracted(leaf: Any, number: int, differentiated: bool) -> Any:
    """An argument's leaf as the trace takes it: an AbstractArray, or what is no array as it is."""
    if isinstance(leaf, Value):
        leaf = leaf.data
    if isinstance(leaf, np.random.Generator):
        return deepcopy(leaf)  # what is given in its place is known by it, and isn't moved
    if not isinstance(leaf, (np.ndarray, AbstractArray, np.generic)):
        if not differentiated or not isinstance(leaf, (bool, int, float, complex)):
            return leaf
        leaf = np.complex128(leaf) if isinstance(leaf, complex) else np.float64(leaf)
    array = abstract(leaf)
    if differentiated and array.dtype.kind not in "fc":
        raise TapeError(
            f"argument {number} holds a {array.dtype} array, which has no gradient; "
            "make it float, or move it to another argument"
        )
    return array


def _check_aux(leaf: Any) -> None:
    """Raise TapeError for an object that holds Values, which a step could not put arrays into."""
    held = list(leaf) if isinstance(leaf, (set, frozenset)) else []
    held.extend(getattr(leaf, "__dict__", {}).values())
    if any(isinstance(item, Value) for item in tree.leaves(held)):
        raise TapeError(
            f"aux holds a {type(leaf).__name__} with traced values in it, which no step could "
            "fill in: use dicts, lists and tuples"
        )


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
    if result.dtype.kind == "c":
        raise TapeError("the loss is complex: take its np.real, np.imag or np.abs")
    if result._node.op is None and result.requires_grad:
        raise TapeError("the loss is a parameter as it is, so there is nothing to compute")
    if not result.requires_grad or result._node not in recorder.positions:
        raise TapeError("the loss depends on none of the parameters, so there is no gradient")
    return recorder.positions[result._node]
