#!/bin/bash
# Exit with 0 if a model of TensorFlow Serving at 127.0.0.1 classifies an image: predict.sh NAME [PORT]
#
# A server whose threads hang still reports its models as AVAILABLE, so a liveness probe has to
# predict. The image is a PNG file of one pixel; the signature is serving_bytes, which every export
# has unless --signatures leaves it out. The image of TensorFlow Serving has bash but not curl.
set -eu
png=iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==
body='{"signature_name": "serving_bytes", "instances": [{"b64": "'$png'"}]}'
exec 3<> "/dev/tcp/127.0.0.1/${2:-8501}"
printf 'POST /v1/models/%s:predict HTTP/1.0\r\nHost: localhost\r\n' "$1" >&3
printf 'Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "${#body}" "$body" >&3
read -r -t 30 line <&3
case $line in HTTP/*' 200'*) exit 0 ;; esac
exit 1
