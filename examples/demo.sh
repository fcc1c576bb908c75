#!/usr/bin/env bash
# Trains on handwritten digits, evaluates, visualizes, exports, serves and queries the network, and
# shows all its units in a browser.
# All output is in runs/demo; another run overwrites it.
set -euo pipefail
cd "$(dirname "$0")/.."
run=runs/demo

say() {
    printf '\n$ %s\n' "$*"
    "$@"
}

say cnnkit-train --recipe demo --output $run --overwrite
say cnnkit evaluate $run
say cnnkit data sample digits --output $run/images
image=$(ls $run/images/*.png)
say cnnkit visualize deconvnet $run "$image" --layer conv5 --output $run/conv5.png
say cnnkit export $run --output $run/models/digits

# Port 0 selects a free port, which the first line of the server names.
printf '\n$ cnnkit serve %s --port 0\n' $run/models/digits
cnnkit serve $run/models/digits --port 0 > $run/server.log 2>&1 &
server=$!
trap 'kill $server 2> /dev/null || true; wait $server 2> /dev/null || true' EXIT
until grep -qs '^serving ' $run/server.log; do
    kill -0 $server 2> /dev/null || { cat $run/server.log >&2; exit 1; }
    sleep 0.2
done
cat $run/server.log
address=$(sed -n 's/^serving .* at \([^ ]*\).*/\1/p' $run/server.log)

say cnnkit query "$image" --server "$address" --model digits --top 3
kill $server
wait $server
say cnnkit microscope $run digits --output $run/site --images 4 --overwrite
printf '\nProjection of a unit of conv5: %s\n' $run/conv5.png
printf 'Every unit in a browser: %s\n' "$PWD/$run/site/index.html"
