#!/usr/bin/env bash
# Puts what the tests on real hosts need on this machine, as root: mmdebstrap, systemd-nspawn, and in DIRECTORY/base the
# file system that all hosts share. Nothing happens where it is there already. The last line of an error says why not.
set -euo pipefail
directory=$1

[ "$(uname -s)" = Linux ] || { echo "hosts are containers, which only Linux has"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "only root can make hosts"; exit 1; }
[ -c /dev/net/tun ] || { echo "there is no /dev/net/tun"; exit 1; }
unshare --mount --net --pid --fork true 2>/dev/null || { echo "no namespaces can be made here"; exit 1; }

# Asked one by one: of several names, one that is found is enough for `command -v`.
is_here() { for program in "$@"; do command -v "$program" >/dev/null || return 1; done; }
if ! is_here mmdebstrap systemd-nspawn ip; then
    command -v apt-get >/dev/null || { echo "there is no mmdebstrap, no systemd-nspawn, and no apt-get to install them"; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap systemd-container iproute2
fi

# wireguard-go, because not every kernel has WireGuard, and wg-quick falls back to it by itself.
packages=systemd,systemd-sysv,dbus,openssh-server,cloud-init,sudo,iproute2,iputils-ping,procps,wireguard,wireguard-go,curl,libfaketime
if [ "$(cat "$directory/installed.txt" 2>/dev/null)" != "$packages" ]; then
    echo "making the hosts' file system (a few minutes, once)"
    rm -rf "$directory/base"
    mkdir -p "$directory"
    mmdebstrap --quiet --variant=apt --include="$packages" bookworm "$directory/base"
    echo "$packages" > "$directory/installed.txt"
fi
