# shellcheck shell=sh
# Sourced by the job: exports a disk as an iSCSI target with CHAP, through the kernel's LIO and its configfs.
target=/sys/kernel/config/target
device=$target/core/iblock_0/disk

verb_export() {
  disk=$(disk_arg) || exit
  iqn=$(arg iqn)
  case $iqn in iqn.*) ;; *) fail 2 "not an iSCSI name: $iqn" ;; esac
  case $iqn in *[!a-z0-9.:-]*) fail 2 "not an iSCSI name: $iqn" ;; esac
  [ -n "$(arg user)" ] && [ -n "$(arg secret)" ] || fail 2 'an export without a CHAP user and secret is refused'
  portal=$(arg portal_ip "$(cat /run/ip)"):3260

  modprobe -a -q crc32c_generic crct10dif_generic
  modprobe -a target_core_mod target_core_iblock iscsi_target_mod || fail 6 'the kernel has no iSCSI target'
  grep -q '^configfs' /proc/mounts || mount -t configfs configfs /sys/kernel/config
  tear_down # whoever was logged in before this order has no business here any more

  mkdir -p $device
  echo "udev_path=/dev/$disk" >$device/control && echo 1 >$device/enable || fail 6 "$disk is in use"
  tpg=$target/iscsi/$iqn/tpgt_1
  mkdir -p $target/iscsi && mkdir -p "$target/iscsi/$iqn" && mkdir -p "$tpg" && mkdir -p "$tpg/lun/lun_0" ||
    fail 6 "the kernel does not take the name $iqn"
  ln -s $device "$tpg/lun/lun_0/disk" || fail 6 'the kernel does not take the LUN'
  # Any initiator may log in that knows the secret: the service has no fixed iSCSI name.
  echo 1 >"$tpg/attrib/generate_node_acls"
  echo 1 >"$tpg/attrib/cache_dynamic_acls"
  echo 0 >"$tpg/attrib/demo_mode_write_protect"
  echo 1 >"$tpg/attrib/authentication"
  printf %s "$(arg user)" >"$tpg/auth/userid" && printf %s "$(arg secret)" >"$tpg/auth/password" ||
    fail 6 'the kernel does not take the CHAP user or secret'
  mkdir "$tpg/np/$portal" && echo 1 >"$tpg/enable" || fail 6 "cannot listen on $portal"
  result "\"portal\":\"$portal\",\"lun\":0"
}

verb_unexport() {
  exported=$(sed 's,^/dev/,,' $device/udev_path 2>/dev/null)
  tear_down
  case $exported in '') sync ;; *) reread "$exported" ;; esac
}

# Disabling a portal group ends its sessions and waits for their commands.
tear_down() {
  [ -d $target/iscsi ] || return 0
  for tpg in "$target"/iscsi/iqn.*/tpgt_*; do
    [ -d "$tpg" ] || continue
    echo 0 >"$tpg/enable"
    rm -f "$tpg"/lun/lun_0/disk
    rmdir "$tpg"/acls/*/lun_0 "$tpg"/acls/* 2>/dev/null
    rmdir "$tpg"/np/* "$tpg"/lun/lun_0 "$tpg" "${tpg%/*}"
  done
  [ ! -d $device ] || rmdir $device || fail 6 'an earlier export cannot be ended: somebody still has the disk'
}
