#!/bin/bash
# Runs the command of a virtual machine, and reports its exit code.

# Pass bytes unchanged: no echo, and no carriage return before a newline.
for port in $PORT_OUT $PORT_ERR $PORT_REPORT; do stty -F /dev/$port raw -echo; done

# Pipes, so that no program sees its output as a terminal.
{
    /etc/command </dev/null 2>&3 | cat >/dev/$PORT_OUT
    exit "${PIPESTATUS[0]}"
} 3>&1 | cat >/dev/$PORT_ERR
echo "exit ${PIPESTATUS[0]}" >/dev/$PORT_REPORT
/bin/busybox reboot -f
