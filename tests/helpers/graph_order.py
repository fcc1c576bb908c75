"""Which checks of a graph end before its results are computed.

Without a dependency, a decoder may allocate an image beside the check that refuses it. Answers do
not show the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

# Operations that may hold a check; without one, TensorFlow calls them StatelessIf and so on.
CHECKS = {"Assert", "If", "Case", "While", "StatefulPartitionedCall"}


def unordered_checks(build: Callable[..., object], *inputs: tf.TensorSpec) -> list[str]:
    """Returns the names of the checks that no result waits for, those of inner functions too.

    The graph is no `tf.function`, whose operations with state wait for one another anyway.

    Args:
        build: Takes tensors and returns the results, nested in any way.
        inputs: What the tensors are.
    """
    graph = tf.compat.v1.wrap_function(build, inputs).graph
    whole = graph.as_graph_def()
    found = _not_before([tensor.name for tensor in graph.outputs], whole.node)
    for function in whole.library.function:
        for name in _not_before(function.ret.values(), function.node_def):
            found.append(f"{function.signature.name}/{name}")
    return found


def _not_before(results: Iterable[str], nodes: Sequence[tf.compat.v1.NodeDef]) -> list[str]:
    by_name = {node.name: node for node in nodes}
    waiting = [_operation(result) for result in results]
    before = set()
    while waiting:
        name = waiting.pop()
        # The arguments of a function are no operations.
        if name in by_name and name not in before:
            before.add(name)
            waiting += map(_operation, by_name[name].input)
    return [node.name for node in nodes if node.op in CHECKS and node.name not in before]


def _operation(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]
