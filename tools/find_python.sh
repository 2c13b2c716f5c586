#!/bin/sh
# Print the Python to build .venv with: $PYTHON if set, else the first of the usual names that is 3.11 or newer.
# Exit 1, saying what was found, where none is.

new_enough='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'

if [ -n "$PYTHON" ]; then
    names=$PYTHON
else
    names='python3.11 python3.12 python3.13 python3 python'
fi

for name in $names; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c "$new_enough" >/dev/null 2>&1; then
        command -v "$name"
        exit 0
    fi
done

{
    echo "error: speechjepa needs Python 3.11 or newer, with its venv module; none of these is: $names"
    for name in $names; do
        command -v "$name" >/dev/null 2>&1 && echo "  $(command -v "$name") is $("$name" --version 2>&1 | head -n 1)"
    done
    echo "Install one (Debian and Ubuntu: apt install python3.11 python3.11-venv), or name it:"
    echo "  make setup PYTHON=/path/to/python3.11"
} >&2
exit 1
