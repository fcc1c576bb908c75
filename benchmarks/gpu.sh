#!/usr/bin/env bash
# The networks on a GPU beside PyTorch, in at most 8 minutes: `bash benchmarks/gpu.sh`, or
# `PYTHON=/path/to/python bash benchmarks/gpu.sh --help` for the options. Needs JAX, PyTorch and Keras
# in that Python, and neither TensorFlow nor an installed cnnkit.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" "$here/gpu.py" "$@"
