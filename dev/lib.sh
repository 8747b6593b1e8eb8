# Shared by the scripts here; read with `.` from the checkout's root.

# kept outside the checkout, so that a fresh clone finds what an earlier one has built
: "${CARGO_TARGET_DIR:=${XDG_CACHE_HOME:-$HOME/.cache}/kminik/target}"
export CARGO_TARGET_DIR
TARGET="$(rustc -vV | sed -n 's/^host: //p')"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages NAME...: those that are missing, from Debian
install_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    # a service that a package would start at once is not wanted: the tests start their own
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

# build PROFILE: the binary, its path in $BINARY
build() {
    cargo build --profile "$1"
    BINARY="$CARGO_TARGET_DIR/$TARGET/$1/kminik"
}
