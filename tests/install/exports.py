#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The shared library exports what the public headers declare, and no more.

usage: exports.py INCLUDE_DIR LIBRARY MAP CC...

Compares three sets of names, each both ways: the functions that the headers
declare, the names in the version script, and the library's dynamic symbols.

None of them, nor a macro of the headers, may be a name of a library that a
program uses beside viodev, or of the code of a VMM that viodev is built into.
"""

import pathlib
import re
import subprocess
import sys

# Names of others, which begin so: libev, libevent, liburing, json-c, libevdev, libslirp, libseccomp, libvfio-user.
PREFIXES = ("ev_", "event_", "evutil_", "io_uring_", "json_", "libevdev_", "slirp_", "seccomp_", "vfu_")

# What <pci/pci.h> of libpci declares, and <pciaccess.h> of libpciaccess.
LIBPCI = """
    alloc init init_internal cleanup scan_bus get_dev free_dev lookup_method get_method_name read_byte read_word
    read_long read_block read_vpd write_byte write_word write_long write_block fill_info setup_cache find_cap
    find_cap_nr filter_init filter_parse_slot filter_parse_id filter_parse filter_match filter_parse_v38
    filter_match_v38 lookup_name load_name_list free_name_list set_name_list_path id_cache_flush id_cache_dirty
    id_lookup id_insert get_param set_param walk_params get_string_property set_string_property define_param
    malloc strdup set_param_internal free_params generic_scan generic_scan_bus generic_block_read
    generic_block_write generic_fill_info
    system_init system_init_dev_mem system_cleanup iterator_destroy device_next device_find_by_slot
    device_get_parent_bridge get_strings device_get_device_name device_get_subdevice_name device_get_vendor_name
    device_get_subvendor_name device_enable device_cfg_read device_cfg_read_u8 device_cfg_read_u16
    device_cfg_read_u32 device_cfg_write device_cfg_write_u8 device_cfg_write_u16 device_cfg_write_u32
    device_cfg_write_bits device_map_range device_unmap_range device_probe device_read_rom device_is_boot_vga
    device_has_kernel_driver device_get_agp_info device_get_bridge_info device_get_pcmcia_bridge_info
    device_get_bridge_buses device_open_io device_close_io open_legacy_io io_read8 io_read16 io_read32 io_write8
    io_write16 io_write32 slot_match_iterator_create id_match_iterator_create
"""

# The same in QEMU's include/hw/pci, as far as it begins with pci_ and could be ours.
QEMU = """
    add_capability add_option_rom bar bar_address bus_init bus_new bus_num bus_reset cap_init config_get_bar_addr
    config_readl config_writel config_set_class config_set_device_id config_set_interrupt_pin
    config_set_prog_interface config_set_revision config_set_vendor_id create create_simple data_read data_write
    default_read_config default_write_config device_deassert_intx device_reset device_save device_load dma_map
    dma_read dma_unmap dma_write for_each_bus for_each_device get_address_space get_bar_addr get_bus get_byte
    get_long get_quad get_word host_config_read_common host_config_write_common irq_assert irq_deassert irq_handler
    irq_pulse is_express is_vf new new_multifunction nic_init parse_devaddr qdev_find_device realize_and_unref
    register_bar register_vga unregister_vga requester_id set_byte set_irq set_long set_quad set_word
    swizzle_map_irq_fn update_mappings word_test_and_clear_mask word_test_and_set_mask
"""

# Idioms of QEMU, kvmtool and the kernel, by whatever header defines them.
IDIOMS = re.compile(r"""(cpu_to_)?[lb]e(16|32|64)(_to_cpu)?[psw]?$
                        | ARRAY_(SIZE|LEN)$ | BIT(_ULL|_MASK)?$ | BUILD_BUG_ON | container_of$ | (un)?likely$
                        | (min|max|MIN|MAX|ROUND_UP|ALIGN|DIV_ROUND_UP|roundup|swap|barrier|smp_[a-z]*mb|__packed)$""",
                    re.X)


def own_text(cc, include, header):
    """A header after the preprocessor, without the headers of others."""
    flags = ["-E", "-x", "c", "-std=gnu17", "-D_GNU_SOURCE", "-I", str(include), "-"]
    output = subprocess.run(cc + flags, input=f"#include <viodev/{header}>\n", check=True, stdout=subprocess.PIPE,
                            text=True).stdout
    own, lines = False, []
    for line in output.splitlines():
        marker = re.match(r'# \d+ "(.*?)"', line)
        if marker:
            own = pathlib.Path(marker[1]).parent == include / "viodev"
        elif own:
            lines.append(line)
    return " ".join(lines)


def declared(text):
    """The functions of external linkage in C declarations."""
    text = re.sub(r"__attribute__\s*\(\(.*?\)\)\s*(?=;)", "", text)
    text = re.sub(r"_Static_assert\s*\(.*?\)\s*;", "", text)
    found = True
    while found:  # inside out; a body ends its definition, members do not
        text, found = re.subn(r"\)\s*\{[^{}]*\}", ");", text)
        if not found:
            text, found = re.subn(r"\{[^{}]*\}", " ", text)
    names = set()
    for declaration in text.split(";"):
        if re.match(r"\s*(typedef|static)\b", declaration):
            continue
        match = re.match(r"[^()]*?\b(\w+)\s*\(", declaration)
        if match:
            names.add(match[1])
    return names


def macros(header):
    """What a header of ours defines."""
    text = header.read_text()
    return set(re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", text, re.M))


def inline(text):
    """Functions that the headers define, from C without its comments."""
    return set(re.findall(r"\bstatic inline\b[^;{}()]*?\b(\w+)\s*\(", text))


def libraries_of(library):
    """Those that it needs, as the loader finds them; none for another machine's."""
    result = subprocess.run(["ldd", library], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return re.findall(r"=> (/\S+)", result.stdout) if result.returncode == 0 else []


def clash(names, library):
    """A line for each name that is somebody else's."""
    others = {f"pci_{name}": "libpci" for name in LIBPCI.split()}
    others |= {f"pci_{name}": "QEMU" for name in QEMU.split()}
    for path in libraries_of(library):
        others |= dict.fromkeys(exported(path), pathlib.Path(path).name)
    for name in names:
        if name in others:
            yield f"{name}: a name of {others[name]}"
        elif name.startswith(PREFIXES) or IDIOMS.match(name):
            yield f"{name}: begins as a name of another library, or is an idiom of VMMs"


def in_script(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return set(re.findall(r"(\S+);", text[text.index("global:"):text.index("local:")]))


def exported(library):
    lines = subprocess.run(["nm", "-D", "--defined-only", library], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in lines.splitlines() if line.split()[1] != "A"}


def main():
    include, library, script, cc = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4:]
    headers = sorted(path.name for path in (include / "viodev").glob("*.h"))
    texts = [own_text(cc, include, header) for header in headers]
    public = set().union(*map(declared, texts))
    listed, symbols = in_script(script.read_text()), exported(library)
    failures = [
        *(f"{name}: declared in a public header, not in {script.name}" for name in public - listed),
        *(f"{name}: in {script.name}, not declared in a public header" for name in listed - public),
        *(f"{name}: declared in a public header, not exported" for name in public - symbols),
        *(f"{name}: exported, not declared in a public header" for name in symbols - public),
    ]
    defined = set().union(*(macros(include / "viodev" / header) for header in headers), *map(inline, texts))
    failures += clash(public | symbols | defined, library)
    if len(headers) < 5 or len(public) < 50:
        failures.append(f"only {len(public)} functions found in {len(headers)} headers")
    print("\n".join(sorted(failures)) or
          f"{len(public)} functions and {len(defined)} other names in {len(headers)} headers")
    return 1 if failures else 0


sys.exit(main())
