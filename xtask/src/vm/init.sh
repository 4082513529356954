#!/bin/bash
# The first process of a virtual machine: mounts file systems and loads modules, then runs the
# command, or starts systemd, which runs it. The kernel's parameters name the ports: PORT_OUT
# and PORT_ERR for the command's stdout and stderr, PORT_REPORT for the report.
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

hostname kaprobe-vm
# A read makes the kernel gather entropy. Static programs only poll for it, which
# would take forever in this guest.
head -c 1 /dev/random >/dev/null
ifconfig lo up
ulimit -n 1048576
if [ -s /etc/modules ] && ! modprobe -a $(cat /etc/modules); then
    echo "broken: a module does not load" >/dev/$PORT_REPORT
    reboot -f
fi

for disk in /sys/block/vd*; do
    [ -e $disk ] || continue
    name=$(cat $disk/serial)
    mkdir -p /packages/$name
    mount -t erofs -o ro /dev/${disk##*/} /packages/$name
done

# A root that systemd can write to: the disk below the files of this initramfs.
root=/packages/systemd-system
if [ -d $root ]; then
    mkdir -p /written /system
    mount -t tmpfs tmpfs /written
    mkdir /written/upper /written/work
    mount -t overlay -o lowerdir=$root,upperdir=/written/upper,workdir=/written/work root /system
    for entry in /*; do
        case $entry in
        /dev | /proc | /sys | /run | /tmp | /packages | /written | /system) ;;
        *) [ -L /system$entry ] || cp -af $entry /system/ ;;
        esac
    done
    # The environment stays: the ports are in it.
    exec switch_root /system /usr/lib/systemd/systemd
fi

exec /etc/run
