#!/bin/bash
# image.sh <mbr|gpt> <kernel directory> <out>: makes the demo image that tests deploy: one FAT partition with a kernel and an initrd that
# is a whole operating system; syslinux boots it on BIOS, systemd-boot on UEFI. Same inputs, same bytes. No mount, no loop device.
set -euo pipefail
table=$1 kernel=$2 out=$3
here=$(dirname "$(readlink -f "$0")")
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C TZ=UTC MTOOLS_SKIP_CHECK=1 SOURCE_DATE_EPOCH=1735689600 # every file of the image is of 2025-01-01
umask 022
MODULES='virtio_pci virtio_net virtio_blk virtio_scsi virtio_rng nvme ahci sd_mod e1000 e1000e igb button evdev isofs vfat nls_ascii nls_cp437'
START_SECTORS=2048 SIZE_SECTORS=$((28 * 2048)) END_SECTORS=2048 # the end has room for a second GPT

[ ! -e "$out" ] || exit 0
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
version=$(basename "$kernel"/lib/modules/*)

# The initrd: busybox, the modules for a virtual node's devices, and our init.
root=$work/root
mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,mnt,etc,"lib/modules/$version"}
cp /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
install -m 755 "$here/image-init" "$root/init"
install -m 755 "$here/image-lease" "$root/bin/lease"
for module in $MODULES; do
  # A flavour without the module, or with it built in, has no line for it.
  modprobe -d "$kernel" -S "$version" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p' || true
done | sort -u | while read -r file; do
  install -D -m 644 "$file" "$root/lib/modules/$version/${file#*/lib/modules/"$version"/}"
done
find "$root" -name '*.ko' -exec strip --strip-debug {} +
cp "$kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
depmod -b "$root" "$version"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$root" && find . | sort | cpio --quiet --reproducible -R 0:0 -o -H newc) | zstd -q -19 >"$work/initrd.img"

# The file system, with a boot loader for either firmware.
arguments='console=ttyS0,115200 quiet panic=5'
cat >"$work/syslinux.cfg" <<CFG
DEFAULT demo
PROMPT 0
TIMEOUT 1
LABEL demo
  LINUX /vmlinuz
  INITRD /initrd.img
  APPEND $arguments
CFG
printf 'timeout 0\ndefault demo.conf\n' >"$work/loader.conf"
printf 'title demo\nlinux /vmlinuz\ninitrd /initrd.img\noptions %s\n' "$arguments" >"$work/demo.conf"
cp "$kernel/boot/vmlinuz-$version" "$work/vmlinuz"
touch -d "@$SOURCE_DATE_EPOCH" "$work"/*
fat=$work/fat
mkfs.vfat --invariant -n DEMO -h $START_SECTORS -C "$fat" $((SIZE_SECTORS / 2)) >/dev/null
mmd -i "$fat" ::EFI ::EFI/BOOT ::loader ::loader/entries
mcopy -m -i "$fat" "$work/vmlinuz" "$work/initrd.img" "$work/syslinux.cfg" ::
mcopy -m -i "$fat" /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::EFI/BOOT/BOOTX64.EFI
mcopy -m -i "$fat" "$work/loader.conf" ::loader/
mcopy -m -i "$fat" "$work/demo.conf" ::loader/entries/
syslinux --install "$fat"

# The disk around it.
raw=$work/demo.raw
truncate -s $(((START_SECTORS + SIZE_SECTORS + END_SECTORS) * 512)) "$raw"
place="start=$START_SECTORS, size=$SIZE_SECTORS"
case $table in
mbr)
  printf 'label: dos\nlabel-id: 0xb100e7e9\n%s, type=ef, bootable\n' "$place" | sfdisk -q "$raw"
  boot_code=/usr/lib/syslinux/mbr/mbr.bin
  ;;
gpt)
  printf 'label: gpt\nlabel-id: B100E7E9-0000-4000-8000-000000000001\n%s, type=U, uuid=B100E7E9-0000-4000-8000-000000000002, attrs=LegacyBIOSBootable\n' \
    "$place" | sfdisk -q "$raw"
  boot_code=/usr/lib/syslinux/mbr/gptmbr.bin
  ;;
*) echo "image.sh: no such partition table: $table" >&2 && exit 2 ;;
esac
dd if="$fat" of="$raw" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$boot_code" of="$raw" bs=440 count=1 conv=notrunc status=none

files=$work/files
mkdir "$files"
qemu-img convert -f raw -O qcow2 -c "$raw" "$files/demo.qcow2"
gzip -9nc "$raw" >"$files/demo.raw.gz"
zstd -q -9 --single-thread "$raw" -o "$files/demo.raw.zst"
mv "$raw" "$files/demo.raw"
mv -T "$files" "$out"
