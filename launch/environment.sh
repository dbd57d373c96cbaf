# Sourced by the scripts here: makes .venv in the checkout and installs the package into it, once.
# PYTHON=/path/to/python chooses the interpreter of a new .venv.
# EXTRA: the extra of what trains on an accelerator, cuda13 or tpu (default: cuda where nvidia-smi is, else none).

unset CDPATH  # with it `cd` prints where it goes
unset PYTHONDONTWRITEBYTECODE  # every process would compile its packages anew
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"

new_enough() {  # the version is asked of the interpreter itself: a version manager's shim can be there and not run
    "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        new_enough "$PYTHON" || { echo "PYTHON=$PYTHON is not a Python 3.11 or newer with venv; set PYTHON to one" >&2; return 2; }
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3; do
        if new_enough "$candidate"; then echo "$candidate"; return; fi
    done
    echo "No Python 3.11 or newer with the venv module found; install one or set PYTHON=/path/to/python" >&2
    return 2
}

# prepare SPEC STAMP...: install "$ROOT$SPEC" unless one of the stamps already has the hash of setup.py.
prepare() {
    local spec="$1" python hash stamp
    shift
    if [[ ! -x "$VENV/bin/python" ]]; then
        python="$(find_python)"
        echo "Making .venv with $("$python" --version)" >&2
        "$python" -m venv "$VENV"
        # The pip that Python brings takes twice as long; without a way to a newer one it does as well.
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --upgrade pip >&2 || true
    fi
    hash="$("$VENV/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$ROOT/setup.py")"
    for stamp in "$@"; do
        if [[ -f "$VENV/.installed-$stamp" && "$(cat "$VENV/.installed-$stamp")" == "$hash $ROOT" ]]; then return; fi
    done
    echo "Installing ragdiff_jax$spec into .venv (only when setup.py changes; the first time takes minutes)" >&2
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then  # stopped while it was made
        python="$(find_python)"
        "$python" -m venv --clear "$VENV"
    fi
    # Python compiles what is imported, once; pip would compile all that is installed, which is half of its time here.
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --editable "$ROOT$spec" >&2
    echo "$hash $ROOT" > "$VENV/.installed-$1"
}

# The folder that a command's --json line names.
folder_of() { python -c "import json, sys; print(json.loads(sys.stdin.read().splitlines()[-1])['folder'])"; }

on_nvidia() { [[ "${JAX_PLATFORMS:-}" != cpu ]] && command -v nvidia-smi >/dev/null; }

# prepare_training [test]: as prepare, but with this machine's JAX. One without it has other stamps and won't do.
prepare_training() {
    local extra="${EXTRA-$(on_nvidia && echo cuda || true)}"
    if [[ -n "$extra" ]]; then prepare "[${1:+$1,}$extra]" "${1:+$1-}$extra" "test-$extra"
    elif [[ -n "${1:-}" ]]; then prepare "[$1]" "$1"
    else prepare "" demo test; fi
}

# What trains on the CPU beside an NVIDIA card is refused, before a day is lost.
check_backend() {
    if [[ -n "${DRY:-}" ]] || ! on_nvidia || [[ "$(python -c 'import jax; print(jax.default_backend())')" != cpu ]]; then return; fi
    echo "nvidia-smi is here, but JAX sees the CPU alone: install its CUDA (EXTRA=cuda or cuda13, as the driver has it) or set JAX_PLATFORMS=cpu" >&2
    return 2
}
