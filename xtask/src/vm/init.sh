#!/bin/bash
# The first process of a virtual machine: mounts file systems, runs the command,
# and reports its exit code. The kernel's parameters name the ports: PORT_OUT and PORT_ERR
# for the command's stdout and stderr, PORT_REPORT for the report.
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
    echo "$*" >/dev/$PORT_REPORT
    reboot -f
}

# Pass bytes unchanged: no echo, and no carriage return before a newline.
for port in $PORT_OUT $PORT_ERR $PORT_REPORT; do stty -F /dev/$port raw -echo; done
hostname kaprobe-vm
# A read makes the kernel gather entropy. Static programs only poll for it, which
# would take forever in this guest.
head -c 1 /dev/random >/dev/null
ifconfig lo up
ulimit -n 1048576
[ ! -s /etc/modules ] || modprobe -a $(cat /etc/modules) || finish "broken: a module does not load"

# Pipes, so that no program sees its output as a terminal.
{
    /etc/command </dev/null 2>&3 | cat >/dev/$PORT_OUT
    exit "${PIPESTATUS[0]}"
} 3>&1 | cat >/dev/$PORT_ERR
finish "exit ${PIPESTATUS[0]}"
