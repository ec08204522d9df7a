# shellcheck shell=bash
# Sourced by scripts/test: installs the servers that the shared stores are tested against, where it may.
# The tests start servers of their own from these programs; none is left running, none started at boot.

# Prints the name of each server that the tests cannot start on this machine.
missing_servers() { # PYTHON
    "$1" -c 'from tests.services import missing_services; print(*missing_services(), sep="\n")'
}

install_servers() { # PYTHON
    local name absent=() policy=/usr/sbin/policy-rc.d ours=
    while read -r name; do
        case $name in
        Redis) absent+=(redis-server) ;;
        PostgreSQL) absent+=(postgresql) ;;
        MariaDB) absent+=(mariadb-server) ;;
        Chromium) absent+=(chromium chromium-driver) ;;
        esac
    done < <(missing_servers "$1")
    [ ${#absent[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! type -p apt-get >/dev/null; then
        return 0
    fi
    say "installing ${absent[*]} with apt-get (--no-install leaves the machine as it is)"
    if [ ! -e "$policy" ]; then # Debian's way to say: install services, but do not start them.
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=$policy
    fi
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    {
        apt-get -qq update || true
        apt-get -qq install -y --no-install-recommends "${absent[@]}" ||
            say "apt-get could not install them; their tests are skipped"
    } </dev/null 2>&1 | grep -E '^(E:|==)' || true
    [ -z "$ours" ] || rm -f "$ours"
}
