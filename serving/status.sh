#!/bin/bash
# Exit with 0 if a model of TensorFlow Serving at 127.0.0.1 is available: status.sh NAME [PORT]
#
# The server returns 200 for /v1/models/NAME while a version is still loading and after it has failed to
# load, so the body has to be read. The image of TensorFlow Serving has bash but not curl.
set -eu
exec 3<> "/dev/tcp/127.0.0.1/${2:-8501}"
printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
while read -r line <&3 || [ -n "$line" ]; do
    case $line in *'"AVAILABLE"'*) exit 0 ;; esac
done
exit 1
