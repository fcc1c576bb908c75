"""The Predict call, as flows: validate, split a batch, send the parts, name a refused row."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cnnkit.client.calls import CallOptions, Calls
from cnnkit.client.encode import RequestTarget, encode_predict_request, template_key
from cnnkit.client.errors import (
    InvalidRequest,
    ModelNotFound,
    ServerError,
    batch_limit,
    error_text,
)
from cnnkit.client.expected import ExpectedOutputs, OutputMismatch
from cnnkit.client.flow import Flow, Gather
from cnnkit.client.inputs import (
    Arrays,
    bind_inputs,
    check_finite,
    concat_batches,
    count_rows,
    split_batch,
)
from cnnkit.client.metadata import Signature
from cnnkit.errors import UsageError, unknown_name
from cnnkit.wire import methods

# The beginning of an error of an exported graph: `image_bytes[3]: the file is ...`.
_ROW = re.compile(r"(\w+)\[(\d{1,9})\]: ")


@dataclass(frozen=True, slots=True)
class Query:
    """What a Predict call asks for.

    Attributes:
        signature: Name of the signature.
        declared: The signature, as the server declares it.
        outputs: Names of the outputs; empty for all.
    """

    signature: str
    declared: Signature
    outputs: tuple[str, ...]


def predict_flow(
    calls: Calls,
    given: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    signature: str,
    outputs: str | Iterable[str] | None,
    options: CallOptions,
) -> Flow[Arrays]:
    """Run a model on a batch: see `Client.predict`."""
    outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs or ())
    target = options.target
    options = _within_limit(calls, signature, options)
    known = calls.known_signatures.get(target)
    key = template_key(given, target, signature, outputs, options.batch_size)
    if known is not None and key is not None and isinstance(given, np.ndarray):
        request = calls.templates.get(key, known.get(signature), given)
        if request is not None:
            selected = known[signature]
            part: Arrays = dict.fromkeys(selected.inputs, given)
            check_finite(part)
            query = Query(signature, selected, outputs)
            try:
                _, arrays = yield from _send(calls, part, query, options, request=request)
            except InvalidRequest as error:
                if not _learn_limit(calls, error, query, options, [part]):
                    raise
                options = _within_limit(calls, signature, options)
            else:
                return arrays
    try:
        query, parts = yield from _bind(calls, given, signature, outputs, options)
    except UsageError:
        if known is None:
            raise
        # The cached signatures may be of a version that the server has replaced since.
        calls.known_signatures.pop(target, None)
        query, parts = yield from _bind(calls, given, signature, outputs, options)
    while True:
        try:
            return (yield from _send_all(calls, parts, query, options))
        except InvalidRequest as error:
            if not _learn_limit(calls, error, query, options, parts):
                raise
        limit = calls.batch_limits[target, signature]
        parts = [smaller for part in parts for smaller in split_batch(part, query.declared, limit)]


def _within_limit(calls: Calls, signature: str, options: CallOptions) -> CallOptions:
    """Return options with at most as many rows in a request as the server takes."""
    limit = calls.batch_limits.get((options.target, signature))
    if limit is None or (options.batch_size is not None and options.batch_size <= limit):
        return options
    return replace(options, batch_size=limit)


def _learn_limit(
    calls: Calls, error: InvalidRequest, query: Query, options: CallOptions, parts: list[Arrays]
) -> bool:
    """Record how many rows the server takes, and return whether smaller requests would do.

    The server has computed nothing of a request that it refuses for its number of rows.
    """
    limit = batch_limit(error)
    rows = [count_rows(part, query.declared) for part in parts]
    if limit is None or None in rows or not 0 < limit < max(filter(None, rows)):
        return False
    calls.batch_limits[options.target, query.signature] = limit
    return True


def _send_all(
    calls: Calls, parts: list[Arrays], query: Query, options: CallOptions
) -> Flow[Arrays]:
    """Send the parts of a batch, and return the outputs of one version for all of them."""
    target = options.target
    if len(parts) == 1:
        _, arrays = yield from _send(calls, parts[0], query, options)
        return arrays
    sizes = (len(next(iter(part.values()))) for part in parts)
    first_rows = list(itertools.accumulate(sizes, initial=0))
    responses = yield Gather(
        (
            _send(calls, part, query, options, first_row=first_row)
            for part, first_row in zip(parts, first_rows, strict=False)
        ),
        calls.concurrency,
    )
    newest = max(version for version, _ in responses)
    # If a new version was loaded meanwhile, repeat the parts that an older one computed.
    late = [index for index, (version, _) in enumerate(responses) if version != newest]
    if late:
        pinned = replace(options, target=RequestTarget(target.model, version=newest))
        again = (_send(calls, parts[i], query, pinned, first_row=first_rows[i]) for i in late)
        repeated = yield Gather(again, calls.concurrency)
        for index, response in zip(late, repeated, strict=True):
            responses[index] = response
    try:
        return concat_batches([arrays for _, arrays in responses])
    except (KeyError, ValueError) as error:
        raise calls.invalid_response(target, f"its parts do not fit together: {error}") from error


def _bind(
    calls: Calls,
    given: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    signature: str,
    outputs: tuple[str, ...],
    options: CallOptions,
) -> Flow[tuple[Query, list[Arrays]]]:
    """Validate the inputs and split them into requests; cache the template of a single one."""
    known = yield from calls.signatures(options)
    if signature not in known:
        raise unknown_name("signature", signature, known)
    selected = known[signature]
    for name in outputs:
        if name not in selected.outputs:
            raise unknown_name("output", name, selected.outputs)
    parts = split_batch(bind_inputs(given, selected), selected, options.batch_size)
    key = template_key(given, options.target, signature, outputs, options.batch_size)
    if key is not None and len(parts) == 1:
        calls.templates.put(key, selected, given, parts[0])
    return Query(signature, selected, outputs), parts


def _send(
    calls: Calls,
    part: Arrays,
    query: Query,
    options: CallOptions,
    *,
    first_row: int = 0,
    request: bytes | None = None,
) -> Flow[tuple[int, Arrays]]:
    """Send rows of a batch; return the version that computed the outputs, and the outputs.

    The error of a refused request names the row that the server refuses.
    """

    # A generator: the parts of a batch are serialized one by one, each when it is sent.
    def send(arrays: Arrays) -> Flow[tuple[int, Arrays]]:
        raw = encode_predict_request(options.target, query.signature, arrays, query.outputs)
        return _predict(calls, raw, query, options)

    try:
        if request is None:
            return (yield from send(part))
        return (yield from _predict(calls, request, query, options))
    except InvalidRequest as error:
        row = yield from find_refused_row(error, part, send)
        if row is None:
            raise
        refusal = error
    row += first_row
    name = f"{next(iter(part))}[{row}]"
    if options.row_names and options.row_names[row]:
        name += f" ({options.row_names[row]})"
    raise InvalidRequest(
        f"{calls.address} refuses {name} of this request to {options.target.model!r}",
        code=refusal.code,
        details=refusal.details,
        row=row,
        request_id=refusal.request_id,
    ) from refusal


def _predict(
    calls: Calls, request: bytes, query: Query, options: CallOptions
) -> Flow[tuple[int, Arrays]]:
    """Send a serialized Predict request, and check the response against the signature."""
    target = options.target
    try:
        raw = yield from calls.call(methods.PREDICT, request, bytes, options, idempotent=False)
    except (InvalidRequest, ModelNotFound):
        calls.known_signatures.pop(target, None)
        raise
    try:
        return calls.decode(raw, ExpectedOutputs(query.declared.outputs, query.outputs), target)
    except OutputMismatch as error:
        # The signatures may be of a version that the server has replaced since.
        calls.known_signatures.pop(target, None)
        known = yield from calls.signatures(options)
        if query.signature not in known:
            raise calls.invalid_response(target, str(error)) from error
        declared = known[query.signature].outputs
    try:
        return calls.decode(raw, ExpectedOutputs(declared, query.outputs), target)
    except OutputMismatch as error:
        raise calls.invalid_response(target, str(error)) from error


def find_refused_row(
    error: InvalidRequest, part: Arrays, send: Callable[[Arrays], Flow[object]]
) -> Flow[int | None]:
    """Find the row that a server refuses.

    Exports of cnnkit name the row unless a decoder fails. For other models, encoded images are sent
    again in halves, until a single one is refused: a fraction of a batch fails as fast as all of
    it, and no image is computed twice.

    Args:
        error: The refusal of the request.
        part: Arrays of the request by input name.
        send: Sends some of the rows again.

    Returns:
        The index of the row, or None if the server does not refuse a single one.

    Raises:
        InvalidRequest: The server refuses a row of another caller.
    """
    if not part or not all(array.ndim for array in part.values()):
        return None
    rows = len(next(iter(part.values())))
    named = _ROW.match(error_text(error.details))
    if named is not None and named[1] in part:
        if int(named[2]) < rows:
            return int(named[2])
        raise InvalidRequest(
            error.problem,
            code=error.code,
            details=error.details,
            hint="The server merges requests (batching), and refuses an image of another caller: "
            "send this request again",
            request_id=error.request_id,
        ) from error
    is_encoded = all(array.ndim == 1 and array.dtype.kind == "O" for array in part.values())
    # A refusal with a hint is one of the request as a whole, for example of its number of rows.
    if not is_encoded or error.code != "INVALID_ARGUMENT" or error.hint is not None:
        return None
    first, last = 0, rows
    is_refused = rows == 1
    while not (is_refused and last - first == 1):
        middle = first + max((last - first) // 2, 1)
        try:
            yield from send({name: array[first:middle] for name, array in part.items()})
        except InvalidRequest:
            is_refused, last = True, middle
        except ServerError:
            # For example the deadline: the first error says more.
            return None
        else:
            if middle == last:
                return None
            is_refused, first = False, middle
    return first
