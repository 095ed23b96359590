#!/bin/sh
# Random passwords for compose.yaml, each in a file of its own; what is there already stays as it is. The directory is
# closed to other users of this machine, the files are not: in a container their readers are users of its own.
set -eu
directory="$(dirname "$0")/secrets"
mkdir -p "$directory"
chmod 700 "$directory"
for name in source reader redis billing search grafana; do
    file="$directory/${name}_password"
    [ -s "$file" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$file"
    chmod 644 "$file"
done
