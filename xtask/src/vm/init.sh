#!/bin/bash
# The first process of a virtual machine: makes the kernel look like a small
# host, runs the command, and tells how it ended. The console is ttyS0, the
# command writes to ttyS1 and ttyS2, and the verdict goes to ttyS3.
export PATH=/usr/bin:/usr/sbin:/usr/lib/busybox HOME=/root TERM=dumb

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /usr/lib/busybox
/bin/busybox --install -s /usr/lib/busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for folder in /dev/shm /tmp /run; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd

finish() {
    echo "$*" >/dev/ttyS3
    reboot -f
}

# Bytes pass as they are: no echo, and no carriage return before a newline.
for port in 1 2 3; do stty -F /dev/ttyS$port raw -echo; done
hostname kaprobe-vm
# Reading makes the kernel gather entropy. Programs linked statically only poll for
# it, and in here that would be for ever.
head -c 1 /dev/random >/dev/null
ifconfig lo up
ulimit -n 1048576
[ ! -s /etc/modules ] || modprobe -a $(cat /etc/modules) || finish "broken: a module does not load"

# Through pipes, so that no program takes its output for a terminal.
{
    /etc/command </dev/null 2>&3 | cat >/dev/ttyS1
    exit "${PIPESTATUS[0]}"
} 3>&1 | cat >/dev/ttyS2
finish "exit ${PIPESTATUS[0]}"
