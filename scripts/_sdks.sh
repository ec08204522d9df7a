# shellcheck shell=bash
# Sourced by scripts/test: the tests with the SDKs of others, which exclude one another and so have environments of
# their own, one for each dependency group whose name begins with `sdks`.

sdk_groups() { sed -nE 's/^(sdks[a-z0-9-]*) = \[.*/\1/p' pyproject.toml; }

# test_sdks GROUP VERSION PYTHON: what a group cannot be installed for is said, and is no failure.
test_sdks() {
    local environment=.venvs/$1-$2
    # A CI server's constraints are those of the other groups. A shell of its own ends where something fails.
    if ! env -u UV_CONSTRAINT -u PIP_CONSTRAINT bash -c 'source scripts/_env.sh; make_env "$@"' \
        make_env "$environment" "$3" -e . --group "$1"; then
        rm -rf "$environment"
        say "$1: not run, for it cannot be installed here (what the installer said stands above)"
        return 0
    fi
    say "$1, on Python $2: $("$environment/bin/python" -c '
from importlib.metadata import PackageNotFoundError, version
for name in ("mcp", "fastmcp", "openai", "anthropic", "gql"):
    try:
        print(name, version(name), end="  ")
    except PackageNotFoundError:
        pass')"
    "$environment/bin/python" -m pytest -q -r fEs tests/sdks tests/mcp \
        --ignore tests/mcp/test_server.py </dev/null # which needs no SDK
}
