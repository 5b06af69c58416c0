#!/bin/sh
# Usage: make_venv.sh FOLDER
#
# Makes or refreshes the virtual environment: exactly what constraints.txt pins,
# as wheels that match its hashes, and both distributions as they stand here.
set -eu

venv=$1

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if new_enough "$name"; then
            echo "$name"
            return
        fi
    done
    echo "Python 3.11 or newer is needed and was not found; install it, or name it: make PYTHON=/path/to/python3" >&2
    return 1
}

if ! new_enough "$venv/bin/python"; then
    python=$(find_python)
    echo "making $venv with $("$python" --version)"
    if ! "$python" -m venv --clear "$venv"; then
        echo "the venv module of $python does not work; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"
}

echo "installing into $venv"
pip install --require-hashes --only-binary :all: -r constraints.txt
pip install --no-deps --no-build-isolation -e clients/python -e .
