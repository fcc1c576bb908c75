#!/bin/bash
# Write the file for tensorflow_model_server --ssl_config_file=OUTPUT, which only its owner can read:
#
#   ssl_config.sh OUTPUT SERVER_KEY SERVER_CERTIFICATE [CLIENT_AUTHORITY]
#
# TensorFlow Serving takes the texts of PEM files, not their names, so OUTPUT holds the private key:
# keep it on the server and out of version control. With CLIENT_AUTHORITY, clients need a certificate
# that it has signed. The gRPC port alone is encrypted; keep the REST port on the loopback interface.
set -euo pipefail
umask 077

refuse() {
    echo "ssl_config.sh: $1" >&2
    exit 2
}

field() {
    printf '%s: "' "$1"
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%s\\n' "${line%$'\r'}"
    done < "$2"
    printf '"\n'
}

[ $# -eq 3 ] || [ $# -eq 4 ] || refuse "the arguments must be OUTPUT, KEY, CERTIFICATE [AUTHORITY]"
case "$*" in *"PRIVATE KEY"*) refuse "the arguments must be names of files, received a private key" ;; esac
for file in "${@:2}"; do
    [ -f "$file" ] && [ -r "$file" ] || refuse "$file must be a file that can be read"
    grep -q -e '-----BEGIN ' "$file" || refuse "$file must be a PEM file"
    # Either would end or change the quoted text.
    ! grep -q '["\\]' "$file" || refuse "$file must be a PEM file without quotes and backslashes"
done
grep -q 'PRIVATE KEY-----' "$2" || refuse "$2 must be a private key"
for file in "${@:3}"; do
    ! grep -q 'PRIVATE KEY-----' "$file" || refuse "$file must be a certificate, received a private key"
done

staging=$(mktemp "$1.XXXXXX")
trap 'rm -f "$staging"' EXIT
{
    field server_key "$2"
    field server_cert "$3"
    if [ $# -eq 4 ]; then
        field custom_ca "$4"
        echo "client_verify: true"
    fi
} > "$staging"
mv "$staging" "$1"
