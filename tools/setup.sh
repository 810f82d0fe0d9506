# shellcheck shell=bash
# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
#
# The set-up shared by bin/demo, bin/test and .ci/run: a virtual environment in the clone with the package in it, its
# extension built. Sourced by bash, with $root set to the clone.
#
#   setup_venv demo|test|dev    afterwards $python is the environment's Python
#
# Nothing outside the clone is touched, unless $install_system_packages is "yes": then, as root on a machine with
# apt-get, what is missing is installed from the distribution's packages. When nothing changed since the last time,
# neither pip nor apt-get is called, so that a second run needs no network.

: "${root:?}"
venv="$root/.venv"
python="$venv/bin/python"
install_system_packages=no
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename "$0"): $*"
    exit 1
}

# Run a command and show what it says only if it fails: pip and setuptools warn of much that is none of a user's business.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || {
        status=$?
        cat "$log" >&2
    }
    rm -f "$log"
    return "$status"
}

# The first Python that is new enough, as the path of the interpreter itself: $PYTHON if that is set.
find_python() {
    local candidate candidates=(python3 python3.14 python3.13 python3.12 python3.11)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        "$candidate" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
print(sys.executable)' 2>/dev/null && return
    done
    die "needs Python 3.11 or newer (apt-get install python3); looked for: ${candidates[*]}"
}

# package_of PYTHON SUFFIX: the distribution's package of that Python, such as python3-venv or python3.13-venv.
package_of() {
    local version
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$version" = "$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" ]; then
        echo "python3-$2"
    else
        echo "python$version-$2"
    fi
}

# The packages that are missing for building the C extension for the Python $1, on one line; empty when it can be built.
missing_for_extension() {
    local compiler include missing=()
    {
        read -r compiler
        read -r include
    } < <("$1" -c '
import os, sysconfig
print((os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0])
print(sysconfig.get_path("include"))')
    if ! printf '#include <stdio.h>\n' | "$compiler" -fsyntax-only -xc - 2>/dev/null; then
        missing+=(gcc libc6-dev)
    fi
    if [ ! -e "$include/Python.h" ]; then missing+=("$(package_of "$1" dev)"); fi
    echo "${missing[*]}"
}

may_install() { [ "$install_system_packages" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Install packages of the distribution. Fails quietly but for apt-get's own last words: the caller knows what to do without.
apt_install() {
    local log status=0
    log=$(mktemp)
    say "installing packages: $*"
    apt_get install "$@" >"$log" 2>&1 || {
        apt_get update >"$log" 2>&1 && apt_get install "$@" >"$log" 2>&1
    } || status=$?
    if [ "$status" != 0 ]; then tail -n 2 "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=1 "$@" </dev/null 9<&- # no daemon that a package starts may hold the lock of setup_venv
}

# bootstrap_pip PYTHON FOLDER: the environment in the folder gets a pip from wherever there is one: the Python that it was
# made with, or the distribution's package of pip, which any user can fetch and unpack.
bootstrap_pip() {
    local scratch wheel status=1
    "$1" -m pip --python "$2/bin/python" install --quiet pip 2>/dev/null && return
    scratch=$(mktemp -d)
    wheel=$(find /usr/share/python-wheels -name 'pip-*.whl' 2>/dev/null | head -n 1)
    [ -n "$wheel" ] || wheel=$(fetch_pip_package "$scratch")
    if [ -n "$wheel" ]; then
        PYTHONPATH="$wheel" quietly "$2/bin/python" -m pip install pip && status=0
    fi
    rm -rf "$scratch"
    return "$status"
}

# Fetch the distribution's package that holds pip as a wheel into the folder $1, and print the wheel's path. The lists of
# packages are the folder's own, since those of a fresh machine are empty and only root may fill them.
fetch_pip_package() (
    cd "$1" || exit
    mkdir -p lists/partial cache/archives/partial
    options=(-q -o Dir::State::Lists="$1/lists" -o Dir::Cache="$1/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Retries=1)
    {
        apt-get "${options[@]}" update && apt-get "${options[@]}" download python3-pip-whl && dpkg-deb -x ./*.deb unpacked
    } >/dev/null 2>&1 </dev/null || exit 0
    find "$1/unpacked" -name 'pip-*.whl' | head -n 1
)

# Whether the environment is there, its Python too, and was not moved together with its clone (scripts name their Python).
venv_works() { "$python" -c 'import pip' 2>/dev/null && grep -qF "$venv/bin/" "$venv/bin/pip"; }

# make_venv FOLDER: a new environment with pip in it.
make_venv() {
    local base
    base=$(find_python)
    if ! has_ensurepip "$base" && may_install; then apt_install "$(package_of "$base" venv)" || true; fi
    rm -rf "$1"
    if has_ensurepip "$base" && "$base" -m venv "$1" >/dev/null; then return; fi
    rm -rf "$1"
    if "$base" -m venv --without-pip "$1" >/dev/null && bootstrap_pip "$base" "$1"; then return; fi
    rm -rf "$1"
    die "cannot make a virtual environment with pip in it; needed: apt-get install $(package_of "$base" venv)"
}

has_ensurepip() { "$1" -c 'import ensurepip' 2>/dev/null; }

# What the installed package was made of: another value means that it has to be installed again.
fingerprint() {
    {
        printf '%s\n' "$root" "$(missing_for_extension "$python")"
        "$python" -VV
        sha256sum "$root"/{setup.cfg,setup.py,pyproject.toml,desync/__init__.py}
        find "$root/desync" -path '*/native/*' -name '*.[ch]' -print0 | sort -z | xargs -0r sha256sum
    } 2>&1 | sha256sum | cut -d' ' -f1
}

# Whether the stamp $1 holds for the fingerprint $2 and at least the level $3.
is_set_up() {
    local made_of level
    { read -r made_of level <"$1"; } 2>/dev/null && [ "$made_of" = "$2" ] && [ "$level" -ge "$3" ]
}

install_package() {
    say "installing the package and what it needs into $venv"
    # An extension that is older than a changed header would be kept.
    find "$root/desync" -name '_native*.so' -delete
    quietly "$python" -m pip install 'setuptools >= 70.1' &&
        quietly "$python" -m pip install --no-build-isolation -e "$root$1" &&
        # The import hook of an editable install hides the twistd plugins of a flat layout; a path does not.
        "$python" -c '
import sys, sysconfig
with open(sysconfig.get_path("purelib") + "/desync-clone.pth", "w") as path:
    path.write(sys.argv[1] + "\n")' "$root"
}

setup_venv() {
    # One set-up at a time: the lock is on a file that is always there, and only this block has it open.
    {
        if command -v flock >/dev/null; then flock 9; fi
        setup_venv_locked "$@"
    } 9<"$root/setup.cfg"
}

setup_venv_locked() {
    local level extras stamp="$venv/desync-setup" missing now
    case $1 in
        demo) level=0 extras= ;;
        test) level=1 extras='[test]' ;;
        dev) level=2 extras='[dev]' ;;
        *) die "no such set-up: $1" ;;
    esac
    if ! venv_works; then
        say "making $venv"
        make_venv "$venv"
    fi
    missing=$(missing_for_extension "$python")
    if [ -n "$missing" ] && may_install; then
        # shellcheck disable=SC2086 # a list of names
        apt_install $missing || say "going on without: $missing"
    fi
    now=$(fingerprint)
    if is_set_up "$stamp" "$now" "$level"; then return; fi
    rm -f "$stamp"
    install_package "$extras" || die "pip could not install the package into $venv (see above)"
    printf '%s %s\n' "$now" "$level" >"$stamp"
}

has_extension() { (cd / && "$python" -c 'import desync.chunking._native') 2>/dev/null; }

# One line on what would make it faster, when the portable code runs.
say_if_portable() {
    local missing
    if has_extension; then return; fi
    missing=$(missing_for_extension "$python")
    if [ -n "$missing" ]; then
        say "The portable code runs. To make it fast: apt-get install $missing"
    else
        say "The portable code runs, although there is a compiler: the extension does not build or load here."
    fi
}
