#!/bin/sh
# Installs kminik from its releases, or from mirrors of them.
#
#   curl -fsSL https://github.com/kminik/kminik/releases/latest/download/install.sh | sh
#   sh install.sh [--version vX.Y.Z] [--dir DIR] [--mirror URL]...
#
# A mirror has the layout of the releases: URL/latest/download/FILE and URL/download/vX.Y.Z/FILE. Mirrors are asked in the order
# given (also KMINIK_MIRRORS, words), the releases last; the first whose archive has the checksum is taken. The checksums
# come from the releases where they answer, else from the mirror itself, which is told; KMINIK_SHA256 pins the archive.
# A download that broke off is resumed. Needs curl or wget, tar, gzip and sha256sum or shasum.
set -eu

RELEASES=${KMINIK_RELEASES:-https://github.com/kminik/kminik/releases}

say() { printf '%s\n' "$*" >&2; }
fail() { say "install.sh: $*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# fetch URL FILE: bounded; goes on where FILE ends.
fetch() {
    if has curl; then
        curl -fsSL --connect-timeout 10 --speed-limit 1024 --speed-time 30 --retry 1 -C - -o "$2" "$1" && return
        # A server that does not know ranges, or a file that is whole already: once from the beginning.
        rm -f "$2"
        curl -fsSL --connect-timeout 10 --speed-limit 1024 --speed-time 30 -o "$2" "$1"
    elif has wget; then
        wget -q -T 30 -c -O "$2" "$1" && return
        rm -f "$2"
        wget -q -T 30 -O "$2" "$1"
    else
        fail "neither curl nor wget is installed"
    fi
}

sha256() {
    if has sha256sum; then sha256sum "$1"; elif has shasum; then shasum -a 256 "$1"; else fail "neither sha256sum nor shasum is installed"; fi |
        cut -d' ' -f1
}

# Of SHA256SUMS $1 the line of the archive: "digest name".
line_of() {
    sed -n "s/^\([0-9a-f]\{64\}\) [ *]\(kminik-v[^ /]*-linux-$arch\.tar\.gz\)\$/\1 \2/p" "$1" | head -n 1
}

main() {
    version='' dir='' mirrors=${KMINIK_MIRRORS:-}
    while [ $# -gt 0 ]; do
        case $1 in
            --version) [ $# -ge 2 ] || fail "--version needs a value"; version=v${2#v}; shift 2 ;;
            --dir) [ $# -ge 2 ] || fail "--dir needs a value"; dir=$2; shift 2 ;;
            --mirror) [ $# -ge 2 ] || fail "--mirror needs a value"; mirrors="$mirrors $2"; shift 2 ;;
            -h | --help) say "usage: install.sh [--version vX.Y.Z] [--dir DIR] [--mirror URL]..."; exit 0 ;;
            *) fail "unknown argument $1" ;;
        esac
    done
    [ "$(uname -s)" = Linux ] || fail "kminik runs on Linux; this is $(uname -s)"
    case $(uname -m) in
        x86_64 | amd64) arch=amd64 ;;
        aarch64 | arm64) arch=arm64 ;;
        *) fail "there is no release for $(uname -m)" ;;
    esac
    if [ -z "$dir" ]; then
        if [ -w /usr/local/bin ]; then dir=/usr/local/bin; else dir=$HOME/.local/bin; fi
    fi
    if [ -n "$version" ]; then below=download/$version; else below=latest/download; fi
    mkdir -p "$dir" || fail "cannot make $dir"
    # Beside the target, so that the last step is a rename.
    work=$(mktemp -d "$dir/.kminik-install.XXXXXX") || fail "cannot write to $dir"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    known=''
    if fetch "$RELEASES/$below/SHA256SUMS" "$work/sums" 2>/dev/null; then known=$(line_of "$work/sums"); fi
    tried=''
    for place in $mirrors "$RELEASES"; do
        place=${place%/}
        line=$known
        if [ -z "$line" ]; then
            rm -f "$work/sums"
            if ! fetch "$place/$below/SHA256SUMS" "$work/sums" 2>/dev/null; then
                tried="$tried
  $place: SHA256SUMS cannot be fetched"
                continue
            fi
            line=$(line_of "$work/sums")
            if [ -z "$line" ]; then
                tried="$tried
  $place: SHA256SUMS names no archive for linux-$arch"
                continue
            fi
            say "The checksum is the mirror's own, for the releases do not answer: $place"
        fi
        digest=${line%% *} archive=${line#* }
        digest=${KMINIK_SHA256:-$digest}
        say "Fetching $archive from $place ..."
        # What another place has begun is the same file: it is gone on with.
        if ! fetch "$place/$below/$archive" "$work/$archive" 2>/dev/null; then
            tried="$tried
  $place: $archive cannot be fetched"
            continue
        fi
        found=$(sha256 "$work/$archive")
        if [ "$found" != "$digest" ]; then
            rm -f "$work/$archive"
            tried="$tried
  $place: $archive has the digest $found, wanted is $digest"
            continue
        fi
        tar -xzf "$work/$archive" -C "$work" || fail "$archive cannot be unpacked"
        program=$work/${archive%.tar.gz}/kminik
        chmod 755 "$program"
        "$program" version --short >"$work/version" || fail "the program does not run on this machine"
        mv -f "$program" "$dir/kminik"
        say "Installed kminik $(cat "$work/version") as $dir/kminik"
        case ":$PATH:" in
            *":$dir:"*) ;;
            *) say "Put it on your PATH: export PATH=\"$dir:\$PATH\"" ;;
        esac
        return 0
    done
    fail "kminik could not be fetched from any place:$tried"
}

# Last, so that a script that was cut off does nothing.
main "$@"
