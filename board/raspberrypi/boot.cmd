# p2pmesh boot script for the Raspberry Pi: two raw slots, two copies of the boot state, no file system
# is written on the way to the kernel. Compiled into boot.scr by ci/image; runs on the U-Boot that Debian ships.
#
# An apostrophe inside of quotes is a syntax error here. Numbers are hexadecimal, as everywhere in U-Boot. Memory map (all below 300 MiB, for a 512 MiB board):
#   05e00000 state sector   05e10000 slot header   05e20000 checksums and boot-extra.txt
#   06000000 initramfs      08000000 the device tree under QEMU (on a Pi the firmware chooses)
#   0a000000 kernel, gzip   10000000 room to unpack it
setenv a_state 05e00000
setenv a_head 05e10000
setenv a_sum 05e20000
setenv a_initrd 06000000
setenv a_kernel 0a000000
setenv kernel_comp_addr_r 10000000
setenv state_vars "BS_SEQ BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT"
setenv head_vars "S_VER S_KOFF S_KCNT S_KLEN S_KCRC S_IOFF S_ICNT S_ILEN S_ICRC S_ROOT"

test -n "${devnum}" || setenv devnum 0
mmc dev ${devnum}

# For people at the console: an empty file `uboot-prompt` on the FAT partition stops here.
setenv stop 0
if test -e mmc ${devnum}:1 uboot-prompt; then setenv stop 1; fi
# For people at the desk and for emulators: `boot-extra.txt` adds arguments to the kernel's command line.
setenv bootargs_extra
if test -e mmc ${devnum}:1 boot-extra.txt; then
  if load mmc ${devnum}:1 ${a_sum} boot-extra.txt; then
    env import -t -r ${a_sum} ${filesize} bootargs_extra
  fi
fi

# --- boot state: read both copies, the newest valid one wins, the other is written ---------------------
setenv seq_1; setenv seq_2
setenv BS_SEQ
if mmc read ${a_state} 2000 1; then
  if env import -c ${a_state} 200 BS_SEQ; then setenv seq_1 ${BS_SEQ}; fi
fi
setenv BS_SEQ
if mmc read ${a_state} 4000 1; then
  if env import -c ${a_state} 200 BS_SEQ; then setenv seq_2 ${BS_SEQ}; fi
fi
setenv from 2000; setenv to 4000
if test -n "${seq_2}"; then
  if test -z "${seq_1}"; then
    setenv from 4000; setenv to 2000
  else
    if itest 0x${seq_2} > 0x${seq_1}; then setenv from 4000; setenv to 2000; fi
  fi
fi
setenv BS_SEQ; setenv BOOT_ORDER; setenv BOOT_A_LEFT; setenv BOOT_B_LEFT
if test -n "${seq_1}${seq_2}"; then
  if mmc read ${a_state} ${from} 1; then env import -c ${a_state} 200 ${state_vars}; fi
else
  echo "p2pmesh: both boot-state sectors are unreadable; starting from the defaults (slot A first)"
fi
test -n "${BS_SEQ}" || setenv BS_SEQ 0
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3
echo "p2pmesh: boot state ${BS_SEQ}: order ${BOOT_ORDER}, tries left A=${BOOT_A_LEFT} B=${BOOT_B_LEFT}"

# --- choose: the first slot in order that has tries left and whose kernel and initramfs are whole --------
setenv pick
for s in ${BOOT_ORDER}; do
  if test -z "${pick}"; then
    if test "${s}" = "A"; then setenv left ${BOOT_A_LEFT}; setenv part 2; else setenv left ${BOOT_B_LEFT}; setenv part 3; fi
    if itest 0x${left} > 0; then
      setenv why "its header is damaged or empty"
      setenv good 0
      for v in ${head_vars}; do setenv ${v}; done
      part start mmc ${devnum} ${part} base
      mmc read ${a_head} ${base} 1
      if env import -c ${a_head} 200 ${head_vars}; then
        setenv why "its header is incomplete"
        if test -n "${S_KOFF}" -a -n "${S_KCNT}" -a -n "${S_KLEN}" -a -n "${S_KCRC}" -a -n "${S_IOFF}" -a -n "${S_ICNT}" -a -n "${S_ILEN}" -a -n "${S_ICRC}"; then
          setenv why "its kernel or initramfs is too large"
          if itest 0x${S_ICNT} < 0x8000; then if itest 0x${S_KCNT} < 0x10000; then
            setenv why "its initramfs fails its checksum"
            setexpr at ${base} + ${S_IOFF}
            if mmc read ${a_initrd} ${at} ${S_ICNT}; then
              crc32 ${a_initrd} ${S_ILEN} ${a_sum}
              setexpr.l sum *${a_sum}
              if itest 0x${sum} == 0x${S_ICRC}; then
                setenv why "its kernel fails its checksum"
                setexpr at ${base} + ${S_KOFF}
                if mmc read ${a_kernel} ${at} ${S_KCNT}; then
                  crc32 ${a_kernel} ${S_KLEN} ${a_sum}
                  setexpr.l sum *${a_sum}
                  if itest 0x${sum} == 0x${S_KCRC}; then setenv good 1; fi
                fi
              fi
            fi
          fi; fi
        fi
      fi
      if test ${good} = 1; then
        setenv pick ${s}
      else
        echo "p2pmesh: slot ${s} is not bootable: ${why}"
        if test "${s}" = "A"; then setenv BOOT_A_LEFT 0; else setenv BOOT_B_LEFT 0; fi
      fi
    else
      echo "p2pmesh: slot ${s} has no tries left"
    fi
  fi
done

# --- count the try and write it to the older copy before anything of the slot runs -----------------------
if test -z "${pick}"; then
  # An order that names no slot, or only a bad one, must not keep the other from being tried.
  setenv BOOT_ORDER "A B"; setenv BOOT_A_LEFT 3; setenv BOOT_B_LEFT 3
else
  if test "${pick}" = "A"; then setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1; else setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1; fi
fi
setexpr BS_SEQ ${BS_SEQ} + 1
env export -c -s 200 ${a_state} ${state_vars}
mmc write ${a_state} ${to} 1

if test -z "${pick}"; then
  echo "p2pmesh: NO SLOT CAN BE BOOTED."
  echo "p2pmesh: Neither slot A nor slot B of this card is usable. All tries are refilled and the board starts again in 10 s."
  echo "p2pmesh: If this message stays, the card is worn or was not written whole: flash it again, or flash another one."
  if test ${stop} = 0; then sleep 10; reset; fi
else
  echo "p2pmesh: booting slot ${pick}, version ${S_VER}"
  setenv kernel_comp_size ${S_KLEN}
  if test "${pick}" = "A"; then setenv part 2; else setenv part 3; fi
  part uuid mmc ${devnum}:${part} partition
  # What the boards do not use and what takes a fifth of a second each to start: self-tests of ciphers (off in the
  # kernel as its authors configure it), KVM, security modules without a policy.
  setenv bootargs "console=ttyS1,115200 quiet panic=10 oops=panic cryptomgr.notests=1 kvm-arm.mode=none lsm=landlock,lockdown,yama p2pmesh.slot=${pick} p2pmesh.part=${partition} p2pmesh.version=${S_VER} p2pmesh.root=${S_ROOT} ${bootargs_extra}"
  if test ${stop} = 0; then
    # A kernel that dies before it has loaded the driver of the watchdog would stay dead. So the board's own timer (PM_WDOG,
    # PM_RSTC) starts it again 16 s from here unless the driver takes over: a lost try. Only where the firmware has left the
    # board's serial number: an emulator leaves none, and QEMU's timer has no patience, it resets at once.
    setenv timer
    fdt addr ${fdt_addr}
    if fdt get value serial / serial-number; then
      fdt get value chip / compatible 1
      if test "${chip}" = "brcm,bcm2837"; then setenv timer 3f1000; fi
      if test "${chip}" = "brcm,bcm2711"; then setenv timer fe1000; fi
    fi
    if test -n "${timer}"; then
      mw.l ${timer}24 5a0fffff
      mw.l ${timer}1c 5a000122
    fi
    booti ${a_kernel} ${a_initrd}:${S_ILEN} ${fdt_addr}
    echo "p2pmesh: the kernel of slot ${pick} could not be started; starting again"
    reset
  fi
fi
echo "p2pmesh: stopped, because the card holds a file uboot-prompt. Type: booti ${a_kernel} ${a_initrd}:${S_ILEN} ${fdt_addr}"
