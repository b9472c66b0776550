#!/usr/bin/env bash
# run.sh COMMAND...: runs a command in a world of its own, in which host.sh can make hosts. REAL_HOSTS names the directory
# that install.sh has filled.
#
# That world is a mount, a network and a process namespace: whatever is mounted, connected or started in it is gone when
# the command ends, however it ends. Only control groups are left, and they are empty.
set -euo pipefail
group=k0rdentctl-hosts-$$

if [ "${1:-}" != --inside ]; then
    for left in /sys/fs/cgroup{,/systemd,/unified}/k0rdentctl-hosts-*; do
        if [ -d "$left" ] && [ ! -d "/proc/${left##*-}" ]; then find "$left" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
    done
    clean() { find /sys/fs/cgroup{,/systemd,/unified}/"$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; }
    trap clean EXIT
    REAL_HOSTS_GROUP=$group unshare --mount --net --pid --fork --kill-child --mount-proc "$0" --inside "$@"
    exit
fi

shift
mkdir -p "$REAL_HOSTS/run" /run/netns
mount -t tmpfs -o mode=0755 tmpfs "$REAL_HOSTS/run"
mount -t tmpfs -o mode=0755 tmpfs /run/netns
ip link set lo up
# Addresses that exist nowhere (RFC 5737). The bridge is where the product is.
ip link add hosts type bridge
ip address add 198.51.100.1/24 dev hosts
ip link set hosts up
"$@"
