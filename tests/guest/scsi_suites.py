# SPDX-License-Identifier: BSD-2-Clause
"""Initiators' own suites on a disk: libiscsi's iscsi-test-cu and sg3-utils, with what came of each test."""

import collections
import re

# Fewer than 65536 blocks: of larger disks iscsi-test-cu reads 32 MiB by one SG_IO, more than Linux's sg driver takes.
# Physical blocks of the same size as logical ones: elsewhere its GetLBAStatus asks about other blocks than it means.
DISK_MIB = 24

PASS, FAIL, SKIP = "pass", "fail", "skip"

# It crashes in this family on what is not iSCSI.
LEFT_OUT = {"ReportLUNs"}
TEST = re.compile(r"^  Test: (\S+) \.\.\.(.*?)(passed|FAILED)$", re.MULTILINE | re.DOTALL)
TOTAL = re.compile(r"^ +tests +(\d+)", re.MULTILINE)

# A unit that lacks a command, a page or an option says so; sg3-utils' exit status for that.
NOT_SUPPORTED = {5, 9, 83}
PROGRAMS = """
sg_inq DISK
sg_inq --len=5 DISK
sg_inq --id DISK
sg_inq --vpd DISK
sg_vpd --all DISK
sg_vpd --page=sv DISK
sg_vpd --page=sn DISK
sg_vpd --page=di DISK
sg_vpd --page=ei DISK
sg_vpd --page=mpp DISK
sg_vpd --page=sinq DISK
sg_vpd --page=bl DISK
sg_vpd --page=bdc DISK
sg_vpd --page=lbpv DISK
sg_vpd --page=zbdc DISK
sg_readcap DISK
sg_readcap --16 DISK
sg_readcap --pmi --lba=5 DISK
sg_luns DISK
sg_luns --select=1 DISK
sg_luns --select=2 DISK
sg_luns --select=0x10 DISK
sg_modes DISK
sg_modes --six DISK
sg_modes --all DISK
sg_modes --all --dbd --llbaa DISK
sg_modes --all --control=1 DISK
sg_modes --all --control=2 DISK
sg_modes --all --control=3 DISK
sg_modes --page=0x3f,0xff DISK
sg_modes --page=1 DISK
sg_modes --page=2 DISK
sg_modes --page=8 DISK
sg_modes --page=0xa DISK
sg_modes --page=0xa,1 DISK
sg_modes --page=0x1a DISK
sg_modes --page=0x1c DISK
sg_opcodes DISK
sg_opcodes --rctd DISK
sg_opcodes --opcode=0x28 DISK
sg_opcodes --opcode=0x28 --rctd DISK
sg_opcodes --opcode=0x9e,0x10 DISK
sg_opcodes --tmf DISK
sg_opcodes --repd --tmf DISK
sg_persist --in --report-capabilities DISK
sg_persist --in --read-keys DISK
sg_persist --out --register --param-sark=abc DISK
sg_persist --in --read-keys DISK
sg_persist --out --reserve --param-rk=abc --prout-type=1 DISK
sg_persist --in --read-reservation DISK
sg_persist --in --read-full-status DISK
sg_persist --out --preempt --param-rk=abc --param-sark=abc --prout-type=5 DISK
sg_persist --out --release --param-rk=abc --prout-type=5 DISK
sg_persist --out --clear --param-rk=abc DISK
sg_persist --out --register-ignore --param-sark=123 DISK
sg_persist --out --register-ignore --param-sark=0 DISK
sg_unmap --force --lba=8 --num=8 DISK
sg_unmap --force --lba=0,16,64 --num=8,8,8 DISK
sg_unmap --force --all=64,4096 DISK
sg_unmap --force --anchor --lba=0 --num=8 DISK
sg_write_same --10 --lba=0 --num=64 --xferlen=512 DISK
sg_write_same --16 --lba=0 --num=64 --xferlen=512 DISK
sg_write_same --16 --unmap --lba=0 --num=64 --xferlen=512 DISK
sg_write_same --16 --ndob --lba=0 --num=64 DISK
sg_compare_and_write --in=/dev/zero --lba=0 --num=1 DISK
sg_compare_and_write --in=/dev/zero --lba=0 --num=1 --dpo --fua DISK
sg_verify --lba=0 --count=64 DISK
sg_verify --16 --lba=0 --count=64 DISK
sg_verify --in=/dev/zero --ndo=512 --lba=0 --count=1 DISK
sg_write_verify --in=/dev/zero --ilen=1024 --lba=0 --num=2 DISK
sg_write_verify --16 --in=/dev/zero --ilen=1024 --lba=0 --num=2 DISK
sg_get_lba_status --lba=0 DISK
sg_get_lba_status --lba=100 --brief DISK
sg_get_lba_status --lba=0 --32 DISK
sg_requests DISK
sg_requests --desc DISK
sg_turs --num=50 DISK
sg_reset --device DISK; sg_requests DISK
sg_sync DISK
sg_sync --16 DISK
sg_sync --immed DISK
sg_seek --10 --lba=5 DISK
sg_seek --lba=5 --num-blocks=5 DISK
sg_start --stop DISK
sg_start --start DISK
sg_start --pc=1 DISK
sg_start --eject DISK
sg_prevent --allow DISK
sg_format --format --six --quick --early DISK
sg_sanitize --overwrite --zero --quick --wait DISK
sg_sanitize --block --quick --wait DISK
sg_senddiag --test DISK
sg_senddiag --list DISK
sg_logs --all DISK
sg_logs --temperature DISK
sg_rbuf --quick DISK
sg_read_buffer --mode=desc DISK
sg_read_long --lba=0 DISK
sg_write_long --lba=0 DISK
sg_reassign --grown DISK
sg_get_elem_status DISK
sg_rep_zones DISK
sg_referrals DISK
sg_bg_ctl DISK
sg_ident DISK
sg_rtpg DISK
sg_stpg DISK
sg_timestamp DISK
sg_raw -r 8 DISK 25 00 00 00 00 00 00 00 00 00
sg_raw DISK 02 00 00 00 00 00
sg_dd if=DISK of=/dev/null bs=512 count=64
sg_dd if=DISK of=/dev/null bs=512 count=64 cdbsz=16
sg_dd if=/dev/zero of=DISK bs=512 count=64 oflag=fua
sgp_dd if=DISK of=/dev/null bs=512 count=4096
sgm_dd if=DISK of=/dev/null bs=512 count=4096
""".strip().split("\n")


def generic(guest, vendor):
    """The /dev/sgN of the disk of this vendor."""
    return "/dev/" + guest.check(f"cd /sys/class/scsi_generic && for i in $(seq 60); do for d in *; do [ $(cat $d/device/vendor) = "
                                 f"{vendor} ] && echo $d && exit 0; done; sleep 1; done; exit 1").strip()


def iscsi_test(guest, disk):
    """Runs every family of iscsi-test-cu that needs no iSCSI: {family: {test: outcome}}, and the text of failures."""
    listed = re.findall(r"^SCSI\.(\w+)$", guest.check("iscsi-test-cu --list"), re.MULTILINE)
    outcomes, texts = {}, []
    for family in listed:
        if family in LEFT_OUT:
            continue
        _, text = guest.run(f"iscsi-test-cu --dataloss --allow-sanitize --test=SCSI.{family} {disk} 2>&1")
        tests = TEST.findall(text)
        assert tests and len(tests) == int(TOTAL.search(text).group(1)), text
        outcomes[family] = {name: FAIL if end == "FAILED" else SKIP if "[SKIPPED]" in body else PASS
                            for name, body, end in tests}
        texts += [f"{family}.{name}:{body}" for name, body, end in tests if end == "FAILED"]
    return outcomes, texts


def sg3_utils(guest, disk):
    """Runs the programs: {program: {command: outcome}}, and the text of failures."""
    outcomes, texts = collections.defaultdict(dict), []
    for command in PROGRAMS:
        status, text = guest.run(command.replace("DISK", disk) + " 2>&1")
        outcome = PASS if status == 0 else SKIP if status in NOT_SUPPORTED else FAIL
        outcomes[command.split()[0]][command] = outcome
        if outcome == FAIL:
            texts.append(f"{command}: status {status}\n{text}")
    return dict(outcomes), texts


def failures(outcomes):
    """Names of the tests that failed."""
    return {f"{family}: {name}" for family, tests in outcomes.items() for name, outcome in tests.items() if outcome == FAIL}


def table(title, peer, ours, theirs):
    """Lines of Markdown: a row a family, and the sum."""
    def figures(tests):
        count = collections.Counter(tests)
        return f"{count[PASS]} | {count[FAIL]} | {count[SKIP]}"

    def all_of(outcomes):
        return [outcome for tests in outcomes.values() for outcome in tests.values()]

    yield f"| {title} | viodev pass | fail | skip | {peer} pass | fail | skip |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for family in ours:
        yield f"| {family} | {figures(ours[family].values())} | {figures(theirs[family].values())} |"
    yield f"| **all** | {figures(all_of(ours))} | {figures(all_of(theirs))} |"
