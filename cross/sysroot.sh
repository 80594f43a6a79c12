#!/bin/sh
# Makes a sysroot of musl for one target from Debian's packages: libraries, headers, and a `gcc` that uses them.
#
#   sysroot.sh PREFIX TRIPLET ROOT DEST   from musl-dev below ROOT, for Debian's compiler PREFIX-gcc (`cargo xtask cross`)
#   sysroot.sh TARGET                     in a container that is ours: installs what is needed, to /opt/duragent (Cross.toml)
#
# Its own, since Debian's musl-gcc is for the machine that builds.
set -eu

make_sysroot() {
    prefix=$1 triplet=$2 root=$3 dest=$4
    mkdir -p "$dest/lib" "$dest/include"
    cp -RL "$root/usr/lib/$triplet/." "$dest/lib/"
    cp -RL "$root/usr/include/$triplet/." "$dest/include/"
    # Rust's library asks for libunwind on musl; gcc's has the same functions.
    cp "$("$prefix-gcc" -print-file-name=libgcc_eh.a)" "$dest/lib/libunwind.a"
    # gcc 12 and later look for a function of glibc there; "not found" makes it use dl_iterate_phdr, as musl wants.
    echo 'int _dl_find_object(void *a, void *b) { (void)a; (void)b; return -1; }' |
        "$prefix-gcc" -Os -c -x c -o "$dest/dl_find_object.o" -
    "$prefix-ar" rD "$dest/lib/libunwind.a" "$dest/dl_find_object.o" 2>/dev/null
    cat >"$dest/musl.specs" <<SPECS
%rename cpp_options old_cpp_options

*cpp_options:
-nostdinc -isystem $dest/include -isystem include%s %(old_cpp_options)

*cc1:
%(cc1_cpu) -nostdinc -isystem $dest/include -isystem include%s

*link_libgcc:
-L$dest/lib -L .%s

*libgcc:
libgcc.a%s %:if-exists(libgcc_eh.a%s)

*startfile:
%{static-pie:$dest/lib/rcrt1.o; static:$dest/lib/crt1.o; :$dest/lib/Scrt1.o} $dest/lib/crti.o %{static:crtbegin.o%s;:crtbeginS.o%s}

*endfile:
%{static:crtend.o%s;:crtendS.o%s} $dest/lib/crtn.o

*link:
-nostdlib -L$dest/lib %{static-pie:-static -pie --no-dynamic-linker -z text} %{static:-static} %{!static:%{!static-pie:-dynamic-linker /lib/ld-musl.so.1}}

SPECS
    first=
    if [ "$triplet" = arm-linux-musleabi ]; then
        leave_out_neon
        mark_atomics
        first="-include $dest/armv6.h"
    fi
    printf '#!/bin/sh\nexec %s-gcc %s "$@" -specs %s/musl.specs\n' "$prefix" "$first" "$dest" >"$dest/gcc"
    chmod +x "$dest/gcc"
}

# ring's assembly for ARM has each function twice, for every machine and for NEON, and chooses when it runs. Below ARMv7
# nobody has NEON: the second halves are left out of the binary, so that readelf can prove that nothing newer is in it.
leave_out_neon() {
    # Each second half begins with `.fpu neon`. Who calls one of them ends there: nobody does, see below.
    cat >"$dest/armv6.h" <<'HEADER'
#if defined(__ASSEMBLER__) && __has_include(<ring_core_generated/prefix_symbols_asm.h>)
#include <ring_core_generated/prefix_symbols_asm.h>
#define arch arch armv6 @
#define fpu end @
#define LEFT_OUT(name) .weak name; .hidden name; .type name, %function; name:
.syntax unified
.section .text.left_out, "ax", %progbits
LEFT_OUT(bn_mul8x_mont_neon)
LEFT_OUT(bsaes_ctr32_encrypt_blocks)
LEFT_OUT(ChaCha20_ctr32_neon)
LEFT_OUT(gcm_ghash_neon)
LEFT_OUT(gcm_gmult_neon)
LEFT_OUT(gcm_init_neon)
LEFT_OUT(openssl_poly1305_neon2_addmulmod)
LEFT_OUT(openssl_poly1305_neon2_blocks)
LEFT_OUT(sha256_block_data_order_neon)
LEFT_OUT(sha512_block_data_order_neon)
LEFT_OUT(vpaes_ctr32_encrypt_blocks)
LEFT_OUT(vpaes_encrypt)
LEFT_OUT(vpaes_encrypt_key_to_bsaes)
LEFT_OUT(vpaes_set_encrypt_key)
LEFT_OUT(x25519_NEON)
.inst 0xe7f000f0 @ udf: ends the process
.text
#endif
HEADER
    # A binary for ARMv6 runs on newer machines, too, and must not find NEON there. AT_HWCAP is 16, HWCAP_NEON bit 12.
    "$prefix-gcc" -Os -c -x c -o "$dest/getauxval.o" - <<'SOURCE'
unsigned long __real_getauxval(unsigned long);
unsigned long __wrap_getauxval(unsigned long type)
{
    unsigned long value = __real_getauxval(type);
    return type == 16 ? value & ~(1ul << 12) : value;
}
SOURCE
    sed -i -e "s|^-nostdlib|--wrap=getauxval &|" -e "s|\(crtbeginS.o%s}\)\$|\1 $dest/getauxval.o|" "$dest/musl.specs"
}

# musl has its barriers three times and takes what the kernel says the machine has. The one instruction of ARMv7 there,
# `dmb`, marks the whole object as Thumb-2, which it is not: it gets the mark of its neighbours. `dmb` is needed where a
# kernel for ARMv8 does without the barriers of ARMv6.
mark_atomics() {
    (
        cd "$dest"
        "$prefix-ar" x lib/libc.a atomics.lo exit.lo
        "$prefix-objcopy" --dump-section .ARM.attributes=attributes exit.lo /dev/null
        "$prefix-objcopy" --update-section .ARM.attributes=attributes atomics.lo
        "$prefix-ar" rD lib/libc.a atomics.lo
        rm -f atomics.lo exit.lo attributes
    )
}

# Debian's name of the architecture, prefix of its compiler, triplet of its musl: as in xtask/src/cross/targets.rs.
in_container() {
    case $1 in
        armv7-unknown-linux-musleabihf) arch=armhf prefix=arm-linux-gnueabihf triplet=arm-linux-musleabihf ;;
        arm-unknown-linux-musleabi) arch=armel prefix=arm-linux-gnueabi triplet=arm-linux-musleabi ;;
        aarch64-unknown-linux-musl) arch=arm64 prefix=aarch64-linux-gnu triplet=aarch64-linux-musl ;;
        x86_64-unknown-linux-musl) arch=amd64 prefix=x86_64-linux-gnu triplet=x86_64-linux-musl ;;
        armv7-unknown-linux-gnueabihf) arch=armhf prefix=arm-linux-gnueabihf triplet= ;;
        aarch64-unknown-linux-gnu) arch=arm64 prefix=aarch64-linux-gnu triplet= ;;
        *) echo "sysroot.sh: expected a target of Cross.toml, found $1" >&2 && exit 2 ;;
    esac
    [ "$arch" = amd64 ] || dpkg --add-architecture "$arch"
    apt-get update
    # For the programs that build scripts compile for the machine that builds, and for the target.
    packages="gcc libc6-dev gcc-$(echo "$prefix" | tr _ -) libc6-dev-$arch-cross"
    [ "$arch" != amd64 ] || packages="gcc libc6-dev"
    [ -z "$triplet" ] || packages="$packages musl-dev:$arch"
    # shellcheck disable=SC2086 # several words
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
    mkdir -p /opt/duragent
    if [ -n "$triplet" ]; then
        make_sysroot "$prefix" "$triplet" "" /opt/duragent
    else
        ln -s "$(command -v "$prefix-gcc")" /opt/duragent/gcc
    fi
}

case $# in
    4) make_sysroot "$@" ;;
    1) in_container "$1" ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
