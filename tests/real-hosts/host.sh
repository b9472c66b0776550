#!/usr/bin/env bash
# host.sh NAME ADDRESS USER_DATA DISK: boots a host in the world that run.sh has made, again after each reboot, until it is
# powered off, or until the standard input ends. What it says on its console goes to the standard output.
#
# A real system and the user data as it is, with these differences from a machine in a cloud: it is a container, so the
# kernel is this machine's; its address is set from outside; its packages are installed already, and there is no place to
# get others from; its own name is in its /etc/hosts; its disk is DISK of memory.
set -euo pipefail
name=$1 address=$2 user_data=$3 disk=$4
here=$REAL_HOSTS/run/$name

mkdir "$here"
mount -t tmpfs -o "size=$disk,mode=0755" tmpfs "$here"
mkdir "$here/changes" "$here/work" "$here/root"
mount -t overlay overlay -o "lowerdir=$REAL_HOSTS/base,upperdir=$here/changes,workdir=$here/work" "$here/root"

seed=$here/root/var/lib/cloud/seed/nocloud
mkdir -p "$seed"
echo "instance-id: $name" > "$seed/meta-data"
install -m 0600 "$user_data" "$seed/user-data"
cat > "$here/root/etc/cloud/cloud.cfg.d/99-host.cfg" <<END
datasource_list: [NoCloud, None]
network: {config: disabled}
locale: false
apt: {preserve_sources_list: true}
END
: > "$here/root/etc/apt/sources.list"
# The node's name, as a cloud's name server has it.
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "${name%-*}" > "$here/root/etc/hosts"

ip netns add "$name"
ip link add "host${address##*.}" type veth peer name eth0 netns "$name"
ip link set "host${address##*.}" master hosts up
ip -n "$name" link set lo up
ip -n "$name" address add "$address/24" dev eth0
ip -n "$name" link set eth0 up

# A control group for each: systemd in a host ends what it finds in its own.
groups=()
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -e "$tree/cgroup.procs" ]; then
        groups+=("$tree/$REAL_HOSTS_GROUP/$name")
    fi
done
mkdir -p "${groups[@]}"

(
    for group in "${groups[@]}"; do echo "$BASHPID" > "$group/cgroup.procs"; done
    # 133 is how systemd-nspawn ends when the host wants to be booted again (systemd-nspawn documentation).
    ended=133
    while [ "$ended" = 133 ]; do
        ended=0
        systemd-nspawn --quiet --directory="$here/root" --machine="$name" --boot --register=no --keep-unit --console=pipe \
            --network-namespace-path="/run/netns/$name" --capability=CAP_NET_ADMIN --bind=/dev/net/tun || ended=$?
    done
) </dev/null &

# What a host holds is scarce, its memory and the kernel's watches: it is given back as soon as nobody needs the host.
cat >/dev/null
kill -KILL $! 2>/dev/null || true
find "${groups[@]}" -name cgroup.procs -exec cat {} + | sort -u | xargs -r kill -KILL 2>/dev/null || true
umount --lazy "$here/root" "$here"
