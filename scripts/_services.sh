# shellcheck shell=bash
# Sourced by scripts/test: installs the servers that the shared stores are tested against, where it may.
# The tests start servers of their own from these programs; none is left running, none started at boot.

# Prints the Debian package of each server that is not there.
absent_servers() {
    { type -p redis-server || type -p valkey-server; } >/dev/null || echo redis-server
    { type -p postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres'; } >/dev/null ||
        echo postgresql
    { type -p mariadbd || type -p mysqld || compgen -G "/usr/sbin/mariadbd"; } >/dev/null || echo mariadb-server
}

install_servers() {
    local absent policy=/usr/sbin/policy-rc.d ours=
    mapfile -t absent < <(absent_servers)
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
