#!/bin/sh
# Installs tidegate as a systemd service on Raspberry Pi OS and other Debians (bookworm or newer).
set -eu
# The gateway's user must be able to enter what is made here, whatever root's umask is; what is private is made so below.
umask 022

usage() {
    cat <<'USAGE'
usage: install.sh install|upgrade|uninstall [options]

  install     install, or bring an installation up to this version; keeps data and configuration
  upgrade     the same, but only where tidegate is installed already
  uninstall   remove the program and the service; keeps data, configuration and user

  --wheel FILE    install this wheel instead of the checkout that this script lies in
  --lock FILE     locked dependencies (default: requirements.lock of the checkout)
  --python PATH   Python 3.11 or newer (default: /usr/bin/python3)
  --root DIR      work below DIR and leave the running system alone: no user, no systemctl
  --purge         with uninstall: remove data, configuration and user too; this can't be undone
USAGE
}

say() { printf '%s\n' "$*"; }

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

checkout=$(cd "$(dirname "$0")/.." && pwd)
action=
wheel=
lock=$checkout/requirements.lock
python=/usr/bin/python3
root=
purge=no

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            install | upgrade | uninstall)
                [ -z "$action" ] || die "one of install, upgrade, uninstall, not both $action and $1"
                action=$1
                ;;
            --wheel | --lock | --python | --root)
                [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value"
                case $1 in
                    --wheel) wheel=$2 ;;
                    --lock) lock=$2 ;;
                    --python) python=$2 ;;
                    --root) root=$(cd "$2" 2>/dev/null && pwd) || die "--root: no directory $2" ;;
                esac
                shift
                ;;
            --purge) purge=yes ;;
            -h | --help)
                usage
                exit 0
                ;;
            *)
                usage >&2
                die "unknown argument: $1"
                ;;
        esac
        shift
    done
    if [ -z "$action" ]; then
        usage >&2
        exit 2
    fi
    [ "$root" != / ] || root=
    [ "$purge" = no ] || [ "$action" = uninstall ] || die "--purge goes with uninstall only"
}

parse "$@"
program=$root/opt/tidegate
settings=$root/etc/tidegate
data=$root/var/lib/tidegate
unit=$root/etc/systemd/system/tidegate.service
command=$root/usr/local/bin/tidegate
fresh=

# The commands that touch the running system; with --root they are left out.
on_system() { [ -z "$root" ]; }
systemd_runs() { on_system && [ -d /run/systemd/system ]; }

check_system() {
    if on_system; then
        [ "$(id -u)" = 0 ] || die "run it as root: sudo sh $0 $action"
        command -v systemctl >/dev/null || die "systemd is needed"
    fi
}

check_python() {
    [ -x "$python" ] || die "no Python at $python: apt install python3, or --python PATH"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed, $python is $("$python" --version 2>&1)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python can't make virtual environments: apt install python3-venv"
    [ -f "$lock" ] || die "no locked dependencies at $lock: run it from a checkout, or --lock FILE"
    if [ -n "$wheel" ]; then
        [ -f "$wheel" ] || die "no wheel at $wheel"
    else
        [ -f "$checkout/pyproject.toml" ] || die "no source at $checkout: run it from a checkout, or --wheel FILE"
    fi
}

# A release is a whole virtual environment. The new one is built and tried beside the old one, and only then does
# the symlink $program/bin move: until that moment a failure changes nothing.
build_release() {
    fresh=$program/releases/$(date -u +%Y%m%dT%H%M%SZ)-$$
    mkdir -p "$fresh"
    trap 'rm -rf "$fresh"' EXIT
    trap 'exit 1' HUP INT TERM
    say "installing into $fresh"
    "$python" -m venv "$fresh" || die "could not make a virtual environment"
    "$fresh/bin/python" -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r "$lock" ||
        die "could not install the dependencies"
    if [ -n "$wheel" ]; then
        install_package "$wheel"
    else
        # From a copy, because a build leaves its own files in the source.
        mkdir "$fresh/source"
        cp -R "$checkout/pyproject.toml" "$checkout/LICENSE" "$checkout/README.md" "$checkout/gateway" \
            "$checkout/drivers" "$fresh/source"
        install_package "$fresh/source"
        rm -rf "$fresh/source"
    fi
    "$fresh/bin/python" -m pip check -q || die "the lock does not fit this version of tidegate"
    cp "$checkout/deploy/systemd/tidegate.service" "$fresh/tidegate.service"
}

install_package() {
    "$fresh/bin/python" -m pip install -q --disable-pip-version-check --no-deps "$1" ||
        die "could not install tidegate from $1"
}

try_release() {
    version=$("$fresh/bin/tidegate" --version) || die "the new version does not start"
    if [ -f "$settings/tidegate.toml" ]; then
        "$fresh/bin/tidegate" check -c "$settings/tidegate.toml" ||
            die "the new version refuses the configuration; nothing was changed"
    fi
}

make_user() {
    on_system || return 0
    getent group dialout >/dev/null || groupadd --system dialout
    getent passwd tidegate >/dev/null ||
        useradd --system --user-group --home-dir /var/lib/tidegate --no-create-home --shell /usr/sbin/nologin tidegate
}

own() {
    if on_system; then chown "$@"; fi
}

make_directories() {
    mkdir -p "$settings/credentials" "$data" "$(dirname "$unit")" "$(dirname "$command")"
    own root:tidegate "$settings"
    chmod 0750 "$settings"
    chmod 0700 "$settings/credentials"
    own tidegate:tidegate "$data"
    chmod 0750 "$data"
}

# $1: a directory below $program/releases, made the one that runs.
switch_to() {
    cp "$1/tidegate.service" "$unit"
    chmod 0644 "$unit"
    rm -f "$program/bin.new"
    ln -s "releases/$(basename "$1")/bin" "$program/bin.new"
    mv -T "$program/bin.new" "$program/bin"
}

current_release() {
    if [ -L "$program/bin" ]; then dirname "$(readlink -f "$program/bin")"; fi
}

# `systemctl restart` would wait as long as a gateway does for somebody who mends what keeps it from starting.
starts() {
    systemctl stop tidegate.service && systemctl start --no-block tidegate.service || return 1
    queued=0
    while sleep 1; do
        case $(systemctl show -P ActiveState tidegate.service)/$(systemctl show -P SubState tidegate.service) in
            active/*) return 0 ;;
            failed/* | */auto-restart) return 1 ;;
            inactive/*) # its turn comes after that of other units, and its status is still that of before
                queued=$((queued + 1))
                [ "$queued" -lt 90 ] || return 1
                continue
                ;;
        esac
        case $(systemctl show -P StatusText tidegate.service) in
            "devices are refused: "*) return 1 ;;
        esac
    done
}

start_or_roll_back() {
    systemd_runs || return 0
    systemctl daemon-reload
    systemctl enable -q tidegate.service
    if starts; then return 0; fi
    if [ -z "$old" ]; then
        die "tidegate does not start: journalctl -u tidegate"
    fi
    switch_to "$old"
    systemctl daemon-reload
    systemctl restart --no-block tidegate.service || true
    rm -rf "$fresh"
    die "the new version does not start; the old one is back: journalctl -u tidegate"
}

remove_old_releases() {
    for release in "$program"/releases/*; do
        [ "$release" = "$fresh" ] || [ "$release" = "$old" ] || rm -rf "$release"
    done
}

install() {
    check_system
    check_python
    old=$(current_release)
    [ "$action" = install ] || [ -n "$old" ] || die "tidegate is not installed in $program"
    build_release
    try_release
    make_user
    make_directories
    first=no
    if [ ! -f "$settings/tidegate.toml" ]; then
        first=yes
        "$fresh/bin/tidegate" init "$settings/tidegate.toml" >/dev/null || die "could not write $settings/tidegate.toml"
    fi
    own root:tidegate "$settings/tidegate.toml"
    chmod 0640 "$settings/tidegate.toml"
    ln -sfn /opt/tidegate/bin/tidegate "$command"
    # A power cut just after the switch must find the new files on the disk.
    sync
    trap - EXIT HUP INT TERM
    switch_to "$fresh"
    if [ "$first" = yes ]; then
        if systemd_runs; then
            systemctl daemon-reload
            systemctl enable -q tidegate.service
        fi
        say "$version is installed. Next:"
        say "  edit /etc/tidegate/tidegate.toml, then: tidegate check -c /etc/tidegate/tidegate.toml"
        say "  systemctl start tidegate"
    else
        start_or_roll_back
        say "$version is installed"
    fi
    remove_old_releases
}

uninstall() {
    check_system
    if systemd_runs && [ -f "$unit" ]; then
        systemctl disable -q --now tidegate.service || die "could not stop tidegate"
    fi
    rm -f "$unit" "$command"
    rm -rf "$program"
    if systemd_runs; then systemctl daemon-reload; fi
    if [ "$purge" = no ]; then
        say "tidegate is removed; $settings and $data are kept (uninstall --purge removes them)"
        return 0
    fi
    rm -rf "$settings" "$data"
    if on_system && getent passwd tidegate >/dev/null; then userdel tidegate; fi
    say "tidegate, its configuration and its data are removed"
}

case $action in
    install | upgrade) install ;;
    uninstall) uninstall ;;
esac
