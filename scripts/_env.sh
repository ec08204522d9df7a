# shellcheck shell=bash
# Sourced by the scripts beside it: finds the machine's Pythons and makes the project's environments.
# Everything it writes lies in .venv, .venvs and __pycache__, which git ignores.

set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd -- "$ROOT"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV UV_PROJECT_ENVIRONMENT CONDA_PREFIX
# Where no bytecode may be written, each of the many processes of the tests compiles all that it imports.
unset PYTHONDONTWRITEBYTECODE
export UV_SYSTEM_CERTS=1 # a machine behind a proxy has its own certificate authority

say() { printf '== %s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Prints "3.12 3.12.1 /path/to/python" for one interpreter if it is one that can be used: a shim may
# exist and run nothing, and a free-threaded build has other wheels.
probe_python() {
    "$1" -I -c '
import sys, sysconfig
if sys.version_info < (3, 10) or sys.implementation.name != "cpython":
    sys.exit(1)
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(1)
import ssl, sqlite3
print("%d.%d" % sys.version_info[:2], "%d.%d.%d" % sys.version_info[:3], sys.executable)
' 2>/dev/null </dev/null
}

# Prints a line of probe_python for each minor version the machine has, oldest first.
find_pythons() {
    local candidate
    {
        # The machine's own default comes first: of two of one minor version it is the one to use.
        compgen -c python3 | grep -Ex 'python3(\.[0-9]+)?' | sort -u | while read -r candidate; do
            type -ap "$candidate" || true
        done
        compgen -G "$HOME/.pyenv/versions/*/bin/python3" || true
        compgen -G "$HOME/.local/share/uv/python/*/bin/python3" || true
        compgen -G "/usr/local/bin/python3.*" || true
        compgen -G "/usr/bin/python3.*" || true
        compgen -G "/opt/python/*/bin/python3" || true
    } | grep -Ev -- '-config$' | awk '!seen[$0]++' | while read -r candidate; do
        probe_python "$candidate" || true
    done | awk '!seen[$1]++' | sort -t. -k2n
}

# The default Python: `python3` of the PATH if that will do, else the newest there is.
default_python() {
    local path
    path=$(type -p python3 || true)
    { [ -n "$path" ] && probe_python "$path"; } || find_pythons | tail -n 1
}

# full_python PATH-OF-THE-DEFAULT: the Python that runs everything: one that has eager tasks, the
# default if it has, else the newest there is.
full_python() {
    local version
    version=$(probe_python "$1" | cut -d' ' -f1)
    if [ "${version#3.}" -ge 12 ]; then probe_python "$1"; else find_pythons | tail -n 1; fi
}

# What pytest runs where neither servers nor long tests are wanted.
# shellcheck disable=SC2034 # the scripts that source this file use it
QUICK='not (services or processes or simulation or browser or packaging)'

# Sets UV to a uv: the PATH's, else one installed into .venvs/uv, else nothing (then pip serves).
find_uv() {
    UV=$(type -p uv || true)
    [ -z "$UV" ] || return 0
    UV=.venvs/uv/bin/uv
    if ! "$UV" --version >/dev/null 2>&1; then
        rm -rf .venvs/uv
        make_bare_venv "$1" .venvs/uv
        .venvs/uv/bin/python -m pip install -q --disable-pip-version-check uv 2>/dev/null || UV=
    fi
}

# make_bare_venv PYTHON DIRECTORY
make_bare_venv() {
    "$1" -m venv "$2" 2>/dev/null && return 0
    local other
    # Debian's Python may come without ensurepip: any Python that has it can carry uv.
    while read -r _ _ other; do
        rm -rf "$2"
        "$other" -m venv "$2" 2>/dev/null && return 0
    done < <(find_pythons)
    fail "no Python here can make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
}

# install_with_uv DIRECTORY PYTHON [install arguments]
install_with_uv() {
    local directory=$1 python=$2
    shift 2
    [ -n "$UV" ] || return 1
    "$UV" venv -q --no-project --python "$python" "$directory" &&
        "$UV" pip install -q --python "$directory/bin/python" "$@"
}

# make_env DIRECTORY PYTHON INSTALL-ARGUMENTS: an environment with what pip or uv is to install.
# It is made again only if pyproject.toml, the Python or the arguments changed since.
make_env() {
    local directory=$1 python=$2 stamp
    shift 2
    stamp=$({ cat pyproject.toml; "$python" -VV; echo "$ROOT" "$@"; } | sha256sum | cut -d' ' -f1)
    mkdir -p .venvs
    exec 9>.venvs/.lock
    flock 9 2>/dev/null || true
    if [ "$(cat "$directory/.stamp" 2>/dev/null)" = "$stamp" ]; then
        exec 9>&-
        return 0
    fi
    say "making $directory for $("$python" -V 2>&1)"
    rm -rf "$directory"
    find_uv "$python"
    # pip reads a machine's pip.conf, which uv does not: where uv cannot install, pip may.
    if ! install_with_uv "$directory" "$python" "$@"; then
        [[ " $* " != *" --resolution "* ]] || return 1 # pip has no such option
        rm -rf "$directory"
        make_bare_venv "$python" "$directory"
        "$directory/bin/python" -m pip install -q -U pip
        "$directory/bin/python" -m pip install -q "$@"
    fi
    echo "$stamp" >"$directory/.stamp"
    exec 9>&-
}
