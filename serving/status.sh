#!/bin/bash
# Exits with 0 where a model of a TensorFlow Serving at 127.0.0.1 can answer: status.sh NAME [PORT]
#
# The server's address /v1/models/NAME says 200 while a version is still loading and when none could
# be loaded, so the answer has to be read. The image of TensorFlow Serving has bash and no curl.
set -eu
exec 3<> "/dev/tcp/127.0.0.1/${2:-8501}"
printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
while read -r line <&3 || [ -n "$line" ]; do
    case $line in *'"AVAILABLE"'*) exit 0 ;; esac
done
exit 1
