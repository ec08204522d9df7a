# shellcheck shell=bash
# Sourced by scripts/test: the whole of it, as a CI server runs it.
#
# Each job is one run of pytest with a log of its own; as many run at once as the machine has cores, and a
# log is shown when its job is done. Branch coverage makes tests two to five times slower: it is measured on one
# Python, by the tests that show each thing once; what they show on other event loops, in the simulation and at
# size runs without it.

WORLDS=600 ROUNDS=2

# What may differ from one Python to another, beside what all of it does on the newest: event loops, threads, files,
# sockets.
PYTHONS_OWN=(tests/refresh tests/stores tests/http
    tests/test_{auth_flow,backends,otel,sync,threads,token,virtual_time}.py)

# Where processes of the library's own are tested. Those of other tests are killed, and report no coverage.
OWN_PROCESSES=(tests/testing/test_testing_process.py tests/cli/test_demo.py tests/processes/test_sync_processes.py)

test_all() { # INSTALL
    local install=$1 line groups version full python oldest first last missing
    read -r oldest _ _ < <(find_pythons)
    read -r _ _ first < <(default_python) || fail "no Python 3.10 or newer on this machine"
    read -r last _ _ < <(full_python "$first")
    mapfile -t lines < <(find_pythons)
    say "Pythons: $(printf '%s\n' "${lines[@]}" | awk '{ printf "%s%s", sep, $2; sep = ", " }'); everything on $last"
    local lowest='' lowest_python
    for line in "${lines[@]}"; do
        read -r version full python <<<"$line"
        find_uv "$python"
        if [ "$version" = "$oldest" ] && [ -n "$UV" ]; then
            lowest=$version lowest_python=$python
            [ "$version" = "$last" ] || continue
        fi
        make_env ".venvs/$version" "$python" -e . --group all-tests
    done
    [ -n "$lowest" ] || say "no uv here: the lowest versions of the dependencies are not tried"
    local bin=.venvs/$last/bin
    [ -z "$install" ] || install_servers "$bin/python"
    missing=$(missing_servers "$bin/python" | paste -sd, | sed 's/,/, /g')

    logs=$(mktemp -d)
    trap 'rm -rf "$logs"' EXIT
    export COVERAGE_FILE=$logs/.coverage
    failed=0 running=0

    # The longest first.
    job "$last, with coverage: what is quick, and the servers" test_covered "$bin/python"
    job "$last: other event loops, and sizes" "$bin/python" -m pytest -q \
        -m "(loops or size) and not (processes or simulation or browser or packaging)"
    job "$last: the processes, the browser and the packages" "$bin/python" -m pytest -q \
        --rounds "$ROUNDS" -m "processes or browser or packaging"
    job "$last: the simulation, at size" "$bin/python" -m pytest -q --worlds "$WORLDS" -m simulation
    [ -z "$lowest" ] ||
        job "$lowest, the lowest version of each dependency: what is quick" test_lowest "$lowest_python"
    for line in "${lines[@]}"; do
        read -r version full python <<<"$line"
        [ "$version" = "$last" ] || [ "$version" = "$lowest" ] ||
            job "$version: the protocol, the stores and the wire" ".venvs/$version/bin/python" -m pytest -q \
                -m "$QUICK and not (loops or size)" "${PYTHONS_OWN[@]}"
    done
    mapfile -t groups < <(sdk_groups)
    for line in "${groups[@]}"; do
        job "$last: $line" test_sdks "$line" "$last" "$bin/python"
    done
    while [ "$running" -gt 0 ]; do await_one; done

    report_coverage

    [ ! -s "$logs/summary" ] || cat "$logs/summary"
    say "not installed, and its tests were skipped: ${missing:-nothing}"
    [ -z "$missing" ] || [ "${CI:-}" != true ] || failed=1
    [ $failed = 0 ] || say "FAILED"
    exit $failed
}

# The lower bounds that pyproject.toml promises. Only uv can resolve to the lowest versions.
test_lowest() { # PYTHON
    make_env .venvs/lowest "$1" --resolution lowest-direct -e '.[httpx2,redis,sql,encrypted,testing,cli]' || return 1
    "$UV" pip install -q --python .venvs/lowest/bin/python --group tests || return 1
    .venvs/lowest/bin/python -m pytest -q -m "$QUICK and not (loops or size)"
}

test_covered() { # PYTHON
    local code=0
    "$1" -m coverage run -m pytest -q "${OWN_PROCESSES[@]}" || code=1
    "$1" -m coverage run -m pytest -q \
        -m "not (processes or simulation or browser or packaging or loops or size)" || code=1
    return $code
}

report_coverage() { # with the variables of test_all
    say "coverage of src, branches too, on $last"
    local floor=() why=''
    [ "${last#3.}" -ge 12 ] || why="no Python with eager tasks (3.12) here"
    [ -z "$missing" ] || why="${why:+$why; }not installed: $missing"
    [ -z "$why" ] || floor=(--fail-under=0)
    "$bin/python" -m coverage combine -q && "$bin/python" -m coverage report "${floor[@]}" || failed=1
    [ -z "$why" ] || say "no coverage is demanded: $why"
}

job() { # NAME COMMAND...
    [ "$running" -lt "$(nproc)" ] || await_one
    local log started=$SECONDS
    log=$(mktemp "$logs/job.XXXXXX")
    running=$((running + 1))
    {
        local name=$1 code=0
        shift
        "$@" </dev/null >"$log" 2>&1 || code=$?
        # One write for each, so that the logs of two jobs do not mix.
        printf '== %s\n%s\n' "$name" "$(cat "$log")"
        printf '== %s: %s (exit %s, %s s)\n' "$name" "$(closing_line "$log")" \
            "$code" "$((SECONDS - started))" >>"$logs/summary"
        exit "$code"
    } &
}

await_one() {
    wait -n || failed=1
    running=$((running - 1))
}

closing_line() { # LOG
    grep -E '(passed|failed|errors?|no tests ran).* in [0-9.]+s' "$1" | tail -n 1 |
        sed -E 's/^=+ | =+$//g' || echo "no result"
}
